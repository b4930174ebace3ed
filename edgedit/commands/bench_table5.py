"""The verbs `bench count` and `bench time`: the paper's efficiency table on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.table5.options import TimeOptions
from edgedit.commands.common import Reporting, console, needing, progressing
from engines.bundle.provenance import command_line, given
from engines.errors import OutputError


@dataclass(frozen=True, kw_only=True)
class BenchCount(Reporting):
    """Count parameters and GMACs of every method of the paper's Table 5, as published, by each row's convention, and
    complete; on no device, in seconds (needs the `train` extra)."""

    components: bool = False
    """Also count the parts of each method."""

    def run(self) -> dict[str, Any]:
        with needing("edgedit bench count", "train"):
            from bench.table5 import counts
        rows = counts.count_rows()
        counts.report(rows, console, components=self.components)
        return counts.summary(rows)


@dataclass(frozen=True, kw_only=True)
class BenchTime(TimeOptions, Reporting):
    """Time every method of the paper's Table 5 with random weights: inversion, edit and both of one image, and peak
    memory; all methods take turns in one run (needs the `train` and `export` extras)."""

    def run(self) -> dict[str, Any]:
        if self.plot is not None and self.plot == self.json:
            raise OutputError(f"--json and --plot both name {self.plot}; give each its own file")
        with needing("edgedit bench time", "train,export"):
            from bench.table5.running import run

            return run(self, command_line("edgedit bench time", given(self)), console, progressing)
