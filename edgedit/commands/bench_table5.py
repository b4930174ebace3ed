"""The verbs `bench count` and `bench time`: the paper's efficiency table on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from edgedit.commands.common import OptionalFile, Reporting, check_output, console, progressing
from engines.bundle.engine_manifest import FloatPrecision
from engines.bundle.provenance import command_line, given
from engines.errors import EdgeditError, OutputError
from engines.family import family


@dataclass(frozen=True, kw_only=True)
class BenchCount(Reporting):
    """Count parameters and GMACs of every method of the paper's Table 5, as published, by each row's convention, and
    complete; on no device, in seconds (needs the `train` extra)."""

    components: bool = False
    """Of the parts of each method too."""

    def run(self) -> dict[str, Any]:
        try:
            from bench.table5 import counts
        except ModuleNotFoundError as error:
            raise EdgeditError(f"`edgedit bench count` needs {error.name}: pip install 'edgedit[train]'") from error
        rows = counts.count_rows()
        counts.report(rows, console, components=self.components)
        return counts.summary(rows)


@dataclass(frozen=True, kw_only=True)
class BenchTime(Reporting):
    """Time every method of the paper's Table 5 with random weights: inversion, edit and both of one image, and peak
    memory; all methods take turns in one run (needs the `train` and `export` extras)."""

    method: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]", help_behavior_hint="(default: all)")
    ] = ()
    """Only these methods, and e4e, which ratios are given to."""
    family: str = "faces-1024"
    """Or cars-512x384, for the methods that do cars."""
    how: Literal["eager", "onnxruntime"] = "eager"
    """In PyTorch as the methods are written, or as ONNX graphs, which are exported first."""
    device: Literal["cpu", "cuda"] = "cpu"
    """torch device; the first GPU is cuda."""
    precision: FloatPrecision = "fp32"
    """Of PyTorch's arithmetic."""
    tf32: bool = False
    """Let FP32 products round to TF32, on a GPU."""
    passes: int = 10
    """Timed passes of each method."""
    warmup: int = 2
    """Passes before those."""
    minutes: Annotated[float, tyro.conf.arg(help_behavior_hint="(default: no limit)")] = math.inf
    """No round is begun that would probably end later, but for the first."""
    threads: int = 0
    """Of one network on the CPU, never more than this process may use; 0 leaves it to PyTorch, and is one per core in
    ONNX Runtime."""
    seed: int = 0
    """Of weights, images and the order of the methods."""
    no_memory: bool = False
    """Leave out peak memory, which takes a process for each method on the CPU."""
    keep_graphs: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: they are thrown away)")
    ] = None
    """With --how onnxruntime: keep the exported graphs there, two bytes a parameter, and use those that are."""
    plot: OptionalFile = None
    """Also draw GMACs against time, to this SVG or PNG (needs matplotlib)."""

    def run(self) -> dict[str, Any]:
        try:
            return self._time()
        except ModuleNotFoundError as error:
            needed = f"`edgedit bench time` needs {error.name}: pip install 'edgedit[train,export]'"
            raise EdgeditError(needed) from error

    def _time(self) -> dict[str, Any]:
        if self.passes < 1 or self.warmup < 1 or not self.minutes > 0:
            raise EdgeditError("--passes and --warmup must be 1 or more, and --minutes above 0")
        if self.keep_graphs is not None and self.how != "onnxruntime":
            raise EdgeditError("--keep-graphs goes with --how onnxruntime")
        if self.tf32 and self.precision != "fp32":
            raise EdgeditError("--tf32 rounds FP32 products: leave it or --precision fp16 out")
        from bench.machine import about
        from bench.table5 import times
        from bench.table5.report import report
        from bench.table5.subjects import Setting

        deadline = time.monotonic() + self.minutes * 60
        keys = times.chosen(self.method)
        setting = Setting(
            family=family(self.family),
            how=self.how,
            device=self.device,
            precision="tf32" if self.tf32 else self.precision,
            threads=self.threads,
            seed=self.seed,
        )
        setting.check()
        draw = self._drawing()
        if self.keep_graphs is not None:
            self.keep_graphs.mkdir(exist_ok=True)
            check_output(self.keep_graphs / "graphs")
        times.check_fits(keys, setting)
        told = about(self.device, command_line("edgedit bench time", given(self)))
        with progressing(times.steps(keys, setting, self.passes, self.warmup, not self.no_memory)) as progress:
            result = times.measure(
                keys,
                setting,
                passes=self.passes,
                warmup=self.warmup,
                memory=not self.no_memory,
                graphs=self.keep_graphs,
                left=lambda: deadline - time.monotonic(),
                progress=progress,
            )
        report(result, console)
        result = told | result
        try:
            draw(result)
        except OutputError as error:
            # The figures are worth more than their picture: they are still written.
            result["error"] = str(error)
        return result

    def _drawing(self) -> Callable[[dict[str, Any]], None]:
        """Draws the plot, if one is asked for; what stands in its way is found out here.

        Raises:
            OutputError: if the file cannot be written.
            RuntimeUnavailableError: without matplotlib.
        """
        path = self.plot
        if path is None:
            return lambda result: None
        from bench.figures import KINDS

        check_output(path, KINDS)
        if path == self.json:
            raise OutputError(f"--json and --plot both name {path}; give each its own file")
        from bench.table5.plot import draw

        return lambda result: draw(result, path)
