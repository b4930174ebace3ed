"""The verbs `bench latency`, `bench compare` and `bench report`: how fast a bundle is, and how that is shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from edgedit.commands.common import (
    BundleOption,
    Graphs,
    Reporting,
    console,
    opened,
    say,
)
from edgedit.editor import PORTRAIT_BUNDLE
from engines.bundle.provenance import command_line, given
from engines.contracts import PIPELINES, SELECTIONS
from engines.errors import EdgeditError, OutputError
from engines.store import check_output

_EXTRAS = "pip install 'edgedit[bench,export]'"

Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]", help_behavior_hint="(default: all)")]


@dataclass(frozen=True, kw_only=True)
class BenchLatency(Reporting):
    """Time a bundle's graphs in every runtime and precision that this machine offers, in turns, beside the ceilings of
    the machine; PyTorch eager in FP32 is 1.0×. Also cold start and peak memory of each, in processes of their own."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle whose graphs are run."""
    graph: Graphs = PIPELINES
    """Graphs by name, or all, pipelines, split."""
    batch: tuple[int, ...] = (1, 4)
    """Images of one pass."""
    runtime: Names = ()
    """Only these, as torch or onnxruntime:fp32; the first is 1.0× if PyTorch's FP32 is not among them."""
    device: Literal["cpu", "cuda"] = "cpu"
    """The processor, or the first GPU."""
    threads: int = 0
    """Of one network on the processor, for all runtimes alike, never more than this process may use; 0: one per
    core."""
    passes: int = 20
    """Timed passes of each graph and batch size, at most."""
    seconds: float = 240.0
    """For all passes together; six are made of each all the same, as many as an interval needs."""
    starts: int = 3
    """Processes in which each runtime is started; 0 leaves cold start and memory out."""

    def run(self) -> dict[str, Any]:
        if min(self.batch, default=0) < 1 or len(set(self.batch)) < len(self.batch):
            raise EdgeditError("--batch takes sizes of 1 or more, each once")
        if self.passes < 1 or not 0 <= self.seconds < float("inf") or self.starts < 0 or self.threads < 0:
            raise EdgeditError("--passes must be 1 or more, --seconds, --starts and --threads 0 or more")
        try:
            from bench.latency.candidates import BASE, candidates
            from bench.latency.measure import Budget, measure
            from bench.latency.tables import report
            from bench.machine import about
        except ModuleNotFoundError as error:
            raise EdgeditError(f"`edgedit bench latency` needs {error.name}: {_EXTRAS}") from error
        bundle = opened(self.bundle)
        graphs = [name for word in self.graph for name in SELECTIONS.get(word, (word,))]
        for name in graphs:
            bundle.graph(name)
        chosen, missing = candidates(bundle, device=self.device, threads=self.threads, wanted=self.runtime)
        for name, reason in missing.items():
            say(f"not measured: {name}: {reason}")
        if chosen[0].name != BASE:
            say(f"without {BASE}, 1.0× is {chosen[0].name}")
        told = about(self.device, command_line("edgedit bench latency", given(self)))
        result = measure(
            bundle,
            chosen,
            list(dict.fromkeys(graphs)),
            self.batch,
            budget=Budget(passes=self.passes, seconds=self.seconds, starts=self.starts),
            device=self.device,
            threads=self.threads,
            progress=say,
        )
        result["not_measured"] = missing | result["not_measured"]
        report(result, console)
        return told | result


@dataclass(frozen=True, kw_only=True)
class BenchCompare(Reporting):
    """Say what got slower or faster from one file of `bench latency` to another, beyond noise: by the ratios to the
    same base, which mean the same on different machines. The exit status is 1 if something got slower."""

    a: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A.json")]
    """The run before."""
    b: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B.json")]
    """The run after."""

    def run(self) -> dict[str, Any]:
        try:
            from bench.latency.compare import compare, remarks, table
            from bench.latency.result import read
        except ModuleNotFoundError as error:
            raise EdgeditError(f"`edgedit bench compare` needs {error.name}: {_EXTRAS}") from error
        result = compare(read(self.a), read(self.b))
        console.print(table(result))
        for line in remarks(result):
            say(line)
        slower = result["slower"]
        return result | ({"error": f"{slower} of {len(result['rows'])} rows got slower"} if slower else {})


@dataclass(frozen=True, kw_only=True)
class BenchReport(Reporting):
    """Draw results of `bench latency`, `bench time` and `bench serve` as one HTML page that loads nothing else."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE [FILE ...]")]
    """JSON files, in the order in which they are shown."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="FILE")]
    """The page."""

    def run(self) -> dict[str, Any]:
        check_output(self.out, (".html", ".htm"))
        if not self.files:
            raise EdgeditError("name at least one JSON file of a measurement")
        if self.out in self.files:
            raise OutputError(f"--out names {self.out}, which is to be read: give the page its own file")
        try:
            from bench.report import page
        except ModuleNotFoundError as error:
            raise EdgeditError(f"`edgedit bench report` needs {error.name}: {_EXTRAS}") from error
        from engines.store import write

        made = page(self.files, command_line("edgedit bench report", {"out": self.out}))
        write(self.out, made)
        say(f"{self.out}: {len(self.files)} measurements, {len(made) / 1e3:,.0f} kB")
        return {"out": str(self.out), "files": len(self.files), "bytes": len(made)}
