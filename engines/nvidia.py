"""Facts of the GPUs of this machine, from NVIDIA's own program."""

from __future__ import annotations

import shutil
import subprocess


def nvidia_smi(*fields: str) -> dict[str, str]:
    """Fields of the first GPU by name; empty where nvidia-smi does not tell."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")] if done.stdout else []
    return dict(zip(fields, values, strict=False))
