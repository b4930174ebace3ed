"""The verb doctor: what this machine can run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from edgedit.commands.common import BundleOption, Reporting, console, say
from edgedit.doctor import examine, summary
from edgedit.editor import PORTRAIT_BUNDLE


@dataclass(frozen=True, kw_only=True)
class Doctor(Reporting):
    """Say what this machine can run and what is missing, with the command that gets it. Exit status 1 if photos cannot
    be edited. Its summary (--json) is for bug reports."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle to try."""
    quick: bool = False
    """Look only, and edit nothing."""

    def run(self) -> dict[str, Any]:
        diagnosis = examine(self.bundle, quick=self.quick, progress=say)
        table = Table("state", "of", "found", "what to do")
        for one in diagnosis.findings:
            table.add_row(one.state, one.name, one.detail, "" if one.state == "good" else one.remedy or "")
        console.print(table)
        say(", ".join(f"{name} {version}" for name, version in diagnosis.versions.items()))
        report = summary(diagnosis)
        if diagnosis.works:
            console.print("photos can be edited here")
            return report
        broken = next(one for one in diagnosis.findings if one.needed and one.state != "good")
        remedy = f": {broken.remedy}" if broken.remedy else ""
        return report | {"error": f"photos cannot be edited here: {broken.name}: {broken.detail}{remedy}"}
