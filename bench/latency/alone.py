"""One runtime in a process of its own: how long it takes to the first picture, and the most memory that it holds.

    python -m bench.latency.alone BEGAN REQUEST

BEGAN is the time at which the process was started, in seconds since the epoch; REQUEST is a JSON object of the bundle's
path, the runtime with its options, and the graphs of which each takes what the one before gave.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.errors import EdgeditError

_LONGEST = 600
"""Seconds that a process may take."""


def start(bundle: Path, runtime: str, options: dict[str, Any], graphs: Sequence[str]) -> dict[str, Any]:
    """The milliseconds and bytes of a process that loads graphs and runs each once.

    Raises:
        EdgeditError: if it fails, with what it said last.
    """
    request = {"bundle": str(bundle), "runtime": runtime, "options": options, "graphs": list(graphs)}
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.latency.alone", repr(time.time()), json.dumps(request)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=_LONGEST,
        )
    except subprocess.TimeoutExpired:
        raise EdgeditError(f"its process took more than {_LONGEST} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise EdgeditError(f"its process failed: {said[-1] if said else f'status {done.returncode}'}")
    return json.loads(done.stdout)


def main() -> None:
    """Runs the request and prints its milliseconds and bytes."""
    began, request = float(sys.argv[1]), json.loads(sys.argv[2])
    import bench.runtimes  # noqa: F401  (registers the baseline)
    from bench.latency.inputs import feeds
    from engines.bundle import Bundle
    from engines.runtimes import create, runtime_class

    runtime_class(request["runtime"])
    imported = time.time()
    bundle = Bundle.load(Path(request["bundle"]))
    loaded = [create(request["runtime"], bundle, graph, **request["options"]) for graph in request["graphs"]]
    ready = time.time()
    given: dict[str, Any] = {}
    for graph in loaded:
        given |= graph.run(feeds(graph.inputs, 1, given))
    picture = time.time()
    # Not before: its libraries are none of the runtime's.
    from engines.bundle.provenance import peak_bytes

    stages = {"start_ms": imported - began, "load_ms": ready - imported, "first_ms": picture - ready}
    whole = {"picture_ms": picture - began}
    print(json.dumps({name: 1e3 * value for name, value in (stages | whole).items()} | {"peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
