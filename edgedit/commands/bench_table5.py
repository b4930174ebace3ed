"""The verb `bench table5`: the paper's efficiency table on this machine."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edgedit.commands.common import OptionalFile, Reporting, check_output, console
from engines.errors import EdgeditError, OutputError
from engines.family import family

_COLUMNS = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))


@dataclass(frozen=True, kw_only=True)
class BenchTable5(Reporting):
    """Count or time every method of the paper's Table 5: one edit of one image, with random weights."""

    counts: bool = False
    """Count parameters and GMACs, as published, by each row's convention, and complete; on no device, in seconds."""
    components: bool = False
    """With --counts: of the parts of each method too."""
    time: bool = False
    """Measure the time of inversion, edit and both, and peak memory; all methods take turns in one run."""
    method: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME")] = ()
    """Only this method, and e4e, which ratios are given to; may be repeated."""
    family: str = "faces-1024"
    """Or cars-512x384, for the methods that do cars."""
    how: Literal["eager", "onnxruntime"] = "eager"
    """In PyTorch as the methods are written, or as ONNX graphs, which are exported first."""
    device: Literal["cpu", "cuda"] = "cpu"
    """The first GPU is cuda."""
    precision: Literal["fp32", "tf32", "fp16"] = "fp32"
    """Of PyTorch's arithmetic."""
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
    graphs: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: a temporary one)")] = (
        None
    )
    """With --how onnxruntime: keep the exported graphs there, two bytes a parameter, and use those that are."""
    plot: OptionalFile = None
    """Also draw GMACs against time, to this SVG or PNG (needs matplotlib)."""

    def run(self) -> dict[str, Any]:
        if self.counts == self.time:
            raise EdgeditError(
                "say either --counts or --time" if self.counts else "nothing to do; say --counts or --time"
            )
        try:
            return self._count() if self.counts else self._time()
        except ModuleNotFoundError as error:
            extra = "train,export" if self.time else "train"
            raise EdgeditError(f"`edgedit bench table5` needs {error.name}: pip install 'edgedit[{extra}]'") from error

    def _count(self) -> dict[str, Any]:
        if strange := [name for name in self._given() if name not in ("counts", "components", "json")]:
            raise EdgeditError(f"{_option(strange[0])} goes with --time, not with --counts")
        from bench.table5 import counts

        rows = counts.count_rows()
        counts.report(rows, console, components=self.components)
        return counts.summary(rows)

    def _time(self) -> dict[str, Any]:
        if self.components:
            raise EdgeditError("--components goes with --counts")
        if self.passes < 1 or self.warmup < 1 or not self.minutes > 0:
            raise EdgeditError("--passes and --warmup must be 1 or more, and --minutes above 0")
        if self.graphs is not None and self.how != "onnxruntime":
            raise EdgeditError("--graphs goes with --how onnxruntime")
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
            precision=self.precision,
            threads=self.threads,
            seed=self.seed,
        )
        setting.check()
        draw = self._drawing()
        if self.graphs is not None:
            self.graphs.mkdir(exist_ok=True)
            check_output(self.graphs / "graphs")
        times.check_fits(keys, setting)
        told = about(self.device, self._command())
        with Progress(*_COLUMNS, console=console, transient=True) as bar:
            task = bar.add_task("", total=times.steps(keys, setting, self.passes, self.warmup, not self.no_memory))
            result = times.measure(
                keys,
                setting,
                passes=self.passes,
                warmup=self.warmup,
                memory=not self.no_memory,
                graphs=self.graphs,
                left=lambda: deadline - time.monotonic(),
                progress=lambda line: bar.update(task, advance=1, description=line),
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

    def _given(self) -> dict[str, Any]:
        """Options that are not at their defaults."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value != defaults[name]}

    def _command(self) -> str:
        """What repeats this run, without paths of this machine."""
        words = ["edgedit bench table5"]
        for name, value in self._given().items():
            if isinstance(value, bool):
                words.append(_option(name))
            elif isinstance(value, tuple):
                words += [f"{_option(name)} {item}" for item in value]
            else:
                words.append(f"{_option(name)} {'FILE' if isinstance(value, Path) else value}")
        return " ".join(words)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
