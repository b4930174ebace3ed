"""NVIDIA's perf_analyzer: another client, in C++, on the same server.

The one that runs on older systems is in the manylinux1 wheel of tritonclient 2.51.0:

    pip download --no-deps --only-binary=:all: --platform manylinux1_x86_64 --python-version 3.11 \\
        --implementation py --abi none tritonclient==2.51.0
"""

from __future__ import annotations

import csv
import io
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.serve.options import ServeBenchOptions
from engines.errors import EdgeditError
from serving.local.server import LocalTriton

_MEMBER = "data/bin/perf_analyzer"
_LIBRARIES = {"libb64-": "libb64.so.0d", "libcudart-": "libcudart.so.12"}
"""The libraries it is linked with, by the prefixes of the development server's own copies."""
_PATIENCE = 300.0
"""Seconds for one row: it measures up to ten windows, and waits for the answers under way after each."""
_UNSTABLE = "Failed to obtain stable measurement"


def analyze(
    tool: Path,
    server: LocalTriton,
    image_bytes: int,
    batching: str,
    options: ServeBenchOptions,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Asks the model `edit` over every transport at every concurrency.

    Args:
        tool: perf_analyzer, or the wheel that holds it.
        server: a running one.
        image_bytes: of an answer.
        batching: of that server, for the rows.
        options: of the run.
        say: is told what is being done.

    Returns:
        Rows with its percentiles in ms and images per second, but for those that it found no stable value of.

    Raises:
        EdgeditError: if it does not start.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgedit-perf-") as scratch:
        folder = Path(scratch)
        binary, environment = _unpack(tool, server, folder)
        for transport in options.transport:
            say(f"perf_analyzer: {transport}, batching {batching}")
            address = server.http if transport == "http" else server.grpc
            for concurrency in options.concurrency:
                command = [binary, "-m", "edit", "-i", "http" if transport == "http" else "grpc", "-u", address]
                command += ["--concurrency-range", str(concurrency), "-p", str(int(options.seconds * 1000))]
                # On a machine that is shared with the server, windows differ by more than the 10 % it wants.
                command += ["-s", "50", "-f", str(folder / "rows.csv")]
                if transport == "shm":
                    command += ["--shared-memory", "system", "--output-shared-memory-size", str(image_bytes)]
                one = _ask(command, environment, folder / "rows.csv")
                rows.append({"way": transport, "batching": batching, "concurrency": concurrency, **one})
    return rows


def read_row(text: str) -> dict[str, float]:
    """The only row of its CSV file, in ms.

    Raises:
        EdgeditError: for anything else.
    """
    try:
        (row,) = csv.DictReader(io.StringIO(text))
        times = {f"{p}_ms": round(float(row[f"{p} latency"]) / 1e3, 3) for p in ("p50", "p95", "p99")}
        return times | {"images_per_second": round(float(row["Inferences/Second"]), 2)}
    except (ValueError, KeyError, TypeError):
        raise EdgeditError("perf_analyzer wrote a table that is not understood; use the one of release 2.51") from None


def _ask(command: list[str], environment: dict[str, str], table: Path) -> dict[str, Any]:
    table.unlink(missing_ok=True)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise EdgeditError(
            f"perf_analyzer found no stable value within {_PATIENCE:g} s; give fewer --seconds or a quieter machine"
        ) from None
    except OSError as error:
        raise EdgeditError(f"perf_analyzer does not run: {error.strerror}") from None
    text = done.stdout + done.stderr
    if _UNSTABLE in text:
        # It writes no table then.
        return {"stable": False}
    if done.returncode or not table.is_file():
        lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it says nothing"]
        raise EdgeditError(f"perf_analyzer failed: {lines[-1]}")
    return read_row(table.read_text()) | {"stable": True}


def _unpack(tool: Path, server: LocalTriton, folder: Path) -> tuple[str, dict[str, str]]:
    """The binary, and the environment in which it finds its libraries."""
    binary = tool
    if zipfile.is_zipfile(tool):
        with zipfile.ZipFile(tool) as wheel:
            member = next((name for name in wheel.namelist() if name.endswith(_MEMBER)), None)
            if member is None:
                raise EdgeditError(f"{tool.name} holds no perf_analyzer; take the manylinux1 wheel of tritonclient")
            binary = folder / "perf_analyzer"
            binary.write_bytes(wheel.read(member))
            binary.chmod(0o755)
    assert server.installation is not None
    for library in (server.installation.server / "nvidia_pytriton.libs").iterdir():
        for prefix, name in _LIBRARIES.items():
            if library.name.startswith(prefix):
                (folder / name).symlink_to(library)
    return str(binary.resolve()), {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(folder), "LANG": "C.UTF-8"}
