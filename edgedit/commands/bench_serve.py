"""The verb `bench serve`: what Triton adds to an edit on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit.commands.common import BundleOption, Reporting, check_output, say
from edgedit.editor import PORTRAIT_BUNDLE
from engines.errors import OutputError


@dataclass(frozen=True, kw_only=True)
class BenchServe(Reporting):
    """Measure edits through the development server beside edits in process, in turns: latency and throughput."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle to serve."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="FILE")]
    """The JSON file for all rows, with raw samples; --json gets the summary."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none is drawn)")] = None
    """Also draw latency and throughput, to this SVG or PNG (needs matplotlib)."""
    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Callers at a time."""
    rounds: int = 4
    """How often everything is measured."""
    seconds: float = 1.0
    """For how long each time."""
    threads: int = 1
    """Threads of ONNX Runtime for one network, in the server and in process; 0 for as many as there are cores."""
    perf_analyzer: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """NVIDIA's perf_analyzer, or the wheel of tritonclient that holds it, to ask the same server afterwards."""
    no_setup: bool = False
    """Install nothing: fail if the development server is not set up."""

    def run(self) -> dict[str, Any]:
        from serving.local import install

        for path in (self.out, self.plot):
            if path is not None:
                check_output(path)
                if path == self.json:
                    raise OutputError(f"--json and another option both name {path}; give each its own file")
        if not self.no_setup:
            install.ensure(say)
        # Not at the top: they are for Linux alone, which the set-up has just made sure of.
        from bench.serve import ServeBenchOptions as Options
        from bench.serve import run
        from bench.serve.tables import report

        result = run(
            Options(
                bundle=self.bundle,
                out=self.out,
                plot=self.plot,
                concurrency=self.concurrency,
                rounds=self.rounds,
                seconds=self.seconds,
                threads=self.threads,
                perf_analyzer=self.perf_analyzer,
            ),
            say,
        )
        report(result, say)
        return {"out": str(self.out), "aims": result["aims"], "rows": len(result["rows"])}
