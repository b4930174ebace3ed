"""The cost and outcome of building engines: seconds, sizes and the share of FP16, for families and targets.

`seconds` is what a build took on this machine, whatever else ran on it; `cpu_seconds` is the processor time of all its
threads, which does not depend on that.

    python -m bench.engines --bundle NAME=DIRECTORY --target sm86 --target sm89 --out builds.json

Bundles are copied, so that nothing is left in them. TensorRT-RTX builds without a GPU.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bench.program import Rows, named, program, say
from engines.building.build import build, parse_profile
from engines.building.builder import BuildOptions
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.engine_manifest import ENGINES_FOLDER, EngineManifest, Precision


@dataclass(frozen=True, kw_only=True)
class EngineBenchOptions:
    """Build engines and write down what it took."""

    bundle: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """NAME=DIRECTORY of a bundle; may be repeated."""
    target: Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
    """Architectures, each built for by itself; may be repeated."""
    precision: Precision = "fp16"
    """The precision of the engines."""
    graph: tuple[str, ...] = ("all",)
    """The graphs, as of `edgedit build`."""
    batch_range: str = "1:1:8"
    """The batch sizes, as of `edgedit build`."""
    out: Path
    """The JSON file to write; rows of an earlier run in it are kept unless they are measured again."""


class _Clock:
    """Prints what a build says, and notes by graph the processor time from its first line to its last."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.seconds: dict[str, float] = {}
        self._began = time.process_time()

    def __call__(self, line: str) -> None:
        say(f"{self.title}: {line}")
        graph, done, _ = line.partition(": ")
        if done and " " not in graph:
            self.seconds[graph] = time.process_time() - self._began
        self._began = time.process_time()


def measure(name: str, path: Path, target: str, options: EngineBenchOptions) -> list[dict[str, Any]]:
    """One row per graph of a bundle, for one target."""
    clock = _Clock(f"{name} {target}")
    with tempfile.TemporaryDirectory(prefix="edgedit-bench-") as folder:
        copy = Path(shutil.copytree(path, Path(folder) / path.name, ignore=shutil.ignore_patterns(ENGINES_FOLDER)))
        manifest = build(
            copy,
            runtime="tensorrt-rtx",
            target=target,
            precision=options.precision,
            graphs=options.graph,
            options=BuildOptions(profile=parse_profile(options.batch_range)),
            progress=clock,
        )
        weights = Bundle.load(copy, verify=False).manifest.files[WEIGHTS_FILE].bytes
    return [
        _row(name, target, graph, manifest, weights, options) | {"cpu_seconds": round(clock.seconds[graph], 3)}
        for graph in manifest.graphs
    ]


def _row(
    name: str, target: str, graph: str, manifest: EngineManifest, weights: int, options: EngineBenchOptions
) -> dict[str, Any]:
    entry = manifest.graphs[graph]
    return {
        "bundle": name,
        "target": target,
        "precision": options.precision,
        "graph": graph,
        "batch": options.batch_range,
        "seconds": entry.seconds,
        "engine_mb": manifest.files[entry.file].bytes / 1e6,
        "graph_weights_mb": entry.weight_bytes / 1e6,
        "bundle_weights_mb": weights / 1e6,
        "device_mb": None if entry.device_memory is None else entry.device_memory / 1e6,
        "gmacs": entry.proof.macs / 1e9,
        "share": entry.proof.share,
        "wide_layers": len(entry.proof.wide),
        "library": f"{manifest.built.library} {manifest.built.version}",
    }


def run(options: EngineBenchOptions) -> None:
    """Builds for every bundle and target, and writes the file after each.

    Raises:
        EdgeditError: if a build fails.
    """
    rows = Rows(options.out, "bundle", "target", "precision", "graph")
    for name, path in named("--bundle", options.bundle):
        for target in options.target:
            rows.add(measure(name, path, target, options))
            # Of all rows, whichever run measured them.
            targets = " ".join(f"--target {one}" for one in dict.fromkeys(row["target"] for row in rows))
            rows.save(f"python -m bench.engines --bundle NAME=BUNDLE {targets} --out FILE")


if __name__ == "__main__":
    program(run, EngineBenchOptions, "bench.engines")
