"""The origin of a figure or a bundle: versions, machine, date. Nothing here names a path, a user or a host."""

from __future__ import annotations

import datetime
import platform
import sys
from importlib import metadata
from pathlib import Path

from engines.cpus import usable
from engines.libraries import LIBRARIES

TOOLS = (
    "edgedit",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxscript",
    "safetensors",
    "torch",
    *(name for library in LIBRARIES.values() for name in library.distributions),
)
"""Packages whose versions can change a result."""


def tool_versions() -> dict[str, str]:
    """Versions of Python and of those of `TOOLS` that are installed."""
    versions = {"python": platform.python_version()}
    for tool in TOOLS:
        try:
            versions[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue
    return versions


def processor() -> str:
    """The CPU in words, with the cores this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {usable()} cores"


def peak_memory() -> float | None:
    """The most memory this process has held, in GiB; None where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:
        return None
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def provenance(command: str) -> dict[str, object]:
    """The origin that a committed measurement states.

    Args:
        command: the command line that repeats it, without paths of this machine.
    """
    return {"command": command, "date": now(), "device": processor(), "versions": tool_versions()}
