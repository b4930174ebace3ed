"""The verbs `bench latency`, `bench compare` and `bench report`: how fast a bundle is, and how that is shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from edgedit.commands.common import BundleOption, Graphs, Reporting, console, needing, say
from edgedit.editor import PORTRAIT_BUNDLE
from engines.bundle.provenance import command_line, given
from engines.contracts import PIPELINES
from engines.errors import EdgeditError, OutputError
from engines.store import check_output

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
    """Threads of one network on the processor, for all runtimes alike, never more than this process may use; 0: one per
    core."""
    passes: int = 20
    """Timed passes of each graph and batch size, at most."""
    seconds: float = 240.0
    """For all passes together; six are made of each all the same, as many as an interval needs."""
    starts: int = 3
    """Processes in which each runtime is started; 0 leaves cold start and memory out."""

    def run(self) -> dict[str, Any]:
        with needing("edgedit bench latency", "bench,export"):
            from bench.latency.measure import Budget
            from bench.latency.running import run
        return run(
            self.bundle,
            graphs=self.graph,
            batches=self.batch,
            runtimes=self.runtime,
            device=self.device,
            threads=self.threads,
            budget=Budget(passes=self.passes, seconds=self.seconds, starts=self.starts),
            command=command_line("edgedit bench latency", given(self)),
            console=console,
            say=say,
        )


@dataclass(frozen=True, kw_only=True)
class BenchCompare(Reporting):
    """Say what got slower or faster from one file of `bench latency` to another, beyond noise: by the ratios to the
    same base, which mean the same on different machines. The exit status is 1 if something got slower."""

    a: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A.json")]
    """The run before."""
    b: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B.json")]
    """The run after."""

    def run(self) -> dict[str, Any]:
        with needing("edgedit bench compare", "bench,export"):
            from bench.latency.compare import compare, remarks, table
            from bench.latency.result import read
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
        with needing("edgedit bench report", "bench,export"):
            from bench.report import page
        from engines.store import write

        made = page(self.files, command_line("edgedit bench report", {"out": self.out}))
        write(self.out, made)
        say(f"{self.out}: {len(self.files)} measurements, {len(made) / 1e3:,.0f} kB")
        return {"out": str(self.out), "files": len(self.files), "bytes": len(made)}
