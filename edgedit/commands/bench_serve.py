"""The verb `bench serve`: what Triton adds to an edit on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bench.serve.options import ServeBenchOptions
from edgedit.commands.common import BundleOption, Reporting, console, say
from edgedit.editor import PORTRAIT_BUNDLE
from engines.bundle.provenance import command_line, given
from engines.errors import OutputError


@dataclass(frozen=True, kw_only=True)
class BenchServe(ServeBenchOptions, Reporting):
    """Measure edits through the development server beside edits in process, in turns: latency and throughput."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle to serve."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",), metavar="FILE")]
    """The JSON file for all rows, with raw samples; --json gets the summary."""
    no_setup: bool = False
    """Install nothing: fail if the development server is not set up."""

    def command(self) -> str:
        return command_line("edgedit bench serve", given(self))

    def run(self) -> dict[str, Any]:
        from serving.local import install

        if self.json is not None and self.json in (self.out, self.plot):
            raise OutputError(f"--json and another option both name {self.json}; give each its own file")
        self.check()
        if not self.no_setup:
            install.ensure(say)
        # Not at the top: they are for Linux alone, which the set-up has just made sure of.
        from bench.serve.running import run
        from bench.serve.tables import report

        result = run(self, say)
        report(result, console)
        return {"out": str(self.out), "aims": result["aims"], "rows": len(result["rows"])}
