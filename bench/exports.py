"""The cost of exporting the methods of Table 5, and the distance of their graphs to PyTorch, with random weights.

    python -m bench.exports --family faces-1024 --out bench/results/export-methods-faces-1024.json

Each method is exported by `edgedit export` in a process of its own, so that the peak of memory is that method's.
`seconds` is what it took on this machine, whatever else ran on it; `cpu_seconds` is the processor time of all its
threads. The file is written after every method; rows of an earlier run are kept unless they are measured again.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bench import engines
from bench.program import Rows, program, say
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.errors import EdgeditError
from engines.family import family
from training.methods import METHODS, find_method


@dataclass(frozen=True, kw_only=True)
class ExportBenchOptions:
    """Export methods of Table 5 and write down what it took and how exact it is."""

    family: str = "faces-1024"
    """The model family, with random weights."""
    method: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Only this method; may be repeated."""
    max_faces: int = 3
    """Random photos to verify with."""
    target: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Also build FP16 engines of TensorRT-RTX for this architecture; may be repeated."""
    out: Path
    """The JSON file to write."""


def measure(key: str, options: ExportBenchOptions) -> dict[str, Any]:
    """One method's row.

    Raises:
        EdgeditError: if the export or a build fails.
    """
    with tempfile.TemporaryDirectory(prefix="edgedit-bench-") as folder:
        bundle, report = Path(folder) / key, Path(folder) / "export.json"
        words = ["export", "--method", key, "--random", options.family, "--max-faces", str(options.max_faces)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "edgedit", *words, "--graph", "pipelines", "-o", str(bundle), "--json", str(report)]
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise EdgeditError(f"the export of {key} failed, see above")
        summary = json.loads(report.read_text())
        manifest = Bundle.load(bundle, verify=False).manifest
        exported: Any = manifest.metrics["export"]
        row = {
            "method": key,
            "family": options.family,
            "seconds": summary["seconds"],
            "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "peak_gib": summary["peak_gib"],
            "parameters": exported["weights"]["parameters"],
            "weights_bytes": manifest.files[WEIGHTS_FILE].bytes,
            "graphs": exported["graphs"],
            "inversion": {spec.name: spec.shape[1:] for spec in manifest.graphs["invert"].outputs},
            "verification": summary["verification"],
        }
        builds = [
            engines.measure(
                key,
                bundle,
                target,
                engines.EngineBenchOptions(bundle=(), target=(), graph=("pipelines",), out=options.out),
            )
            for target in options.target
        ]
        return row | {"engines": [one for rows in builds for one in rows]}


def run(options: ExportBenchOptions) -> None:
    """Exports every method, and writes the file after each.

    Raises:
        EdgeditError: if an export or a build fails.
        ValueError: for an unknown family or method.
    """
    family(options.family)
    keys = [find_method(key).info.key for key in options.method or METHODS]
    rows = Rows(options.out, "method", "family")
    for key in keys:
        say(f"{key}:")
        rows.add([measure(key, options)])
        # Of all rows, whichever run measured them.
        built = dict.fromkeys(engine["target"] for row in rows for engine in row.get("engines", ()))
        targets = "".join(f" --target {target}" for target in built)
        rows.save(f"python -m bench.exports --family {options.family}{targets} --out FILE")


if __name__ == "__main__":
    program(run, ExportBenchOptions, "bench.exports")
