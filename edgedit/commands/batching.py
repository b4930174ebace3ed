"""The verb `batch`: many photos, each with the same edits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from edgedit.batching.edits import EXAMPLE
from edgedit.batching.job import batch
from edgedit.batching.progress import Status
from edgedit.batching.report import FILE, Report
from edgedit.commands.common import Crediting, OptionalFile, OptionalText, console, say
from engines.errors import EdgeditError

EVERY = 10.0
"""Seconds between lines of progress where there is no terminal."""
SHOWN = 20
"""Failures that are listed; the report holds all."""


@dataclass(frozen=True, kw_only=True)
class Batch(Crediting):
    """Edit many photos, each with every edit of a file; a run that was stopped or killed goes on where it was."""

    photos: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="IN", help_behavior_hint="")] = None
    """A folder (and the folders in it), a tar or ZIP archive, or a text file with a path a line."""
    out: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="OUT", help_behavior_hint="")] = None
    """The folder of the results: OUT/EDIT/PHOTO, and report.json."""
    edits: Annotated[OptionalFile, tyro.conf.arg(aliases=("-e",))] = None
    """YAML file of named edits; --example prints one."""
    example: bool = False
    """Print a file of edits, and do nothing else."""
    batch: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Photos that the networks take at once, 1 to 16."""
    aligned: bool = False
    """The photos are aligned faces already: edit them whole, at the model's size."""
    face: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: the largest)")] = None
    """Which face of several, 0 the largest."""
    retry_failed: bool = False
    """Try photos again that failed in an earlier run."""
    ray: Annotated[OptionalText, tyro.conf.arg(metavar="ADDRESS")] = None
    """Work on the machines of the Ray cluster at this address, or "local" for processes on this one (needs the `ray`
    extra)."""
    workers: int = 0
    """Processes of Ray; 0: as many as it has processors for."""

    def run(self) -> dict[str, Any]:
        if self.example:
            console.print(EXAMPLE, end="")
            return {"example": EXAMPLE}
        if self.photos is None or self.out is None or self.edits is None:
            raise EdgeditError(
                "name photos, a folder for the results, and edits: edgedit batch IN OUT --edits edits.yaml "
                "(`edgedit batch --example` prints such a file)"
            )
        options = {"threads": self.threads} if self.threads else {}
        with _progress() as progress:
            report = batch(
                self.photos,
                self.out,
                self.edits,
                bundle=self.bundle,
                runtime=self.runtime,
                public_key=self.public_key,
                batch_size=self.batch,
                aligned=self.aligned,
                face=self.face,
                retry_failed=self.retry_failed,
                credentials=self.wants_credentials(),
                edit_list=not self.no_edit_list,
                private_key=self.private_key,
                certificate=self.certificate,
                ray=self.ray,
                workers=self.workers,
                progress=progress,
                say=say,
                **options,
            )
        _show(report, self.out)
        summary = report.to_json() | {"out": str(self.out)}
        if report.failed:
            again = "" if self.retry_failed else "; --retry-failed tries them again"
            summary["error"] = f"{report.failed} of {report.photos} photos failed, see {self.out / FILE}{again}"
        return summary


@contextmanager
def _progress() -> Iterator[Callable[[Status], None]]:
    """Shows progress: a bar on a terminal, else a line now and then."""
    if not console.draws:
        last = time.monotonic()

        def line(status: Status) -> None:
            nonlocal last
            if time.monotonic() - last >= EVERY:
                last = time.monotonic()
                say(str(status))

        yield line
        return
    with Progress(BarColumn(), TextColumn("{task.description}"), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def move(status: Status) -> None:
            bar.update(task, total=status.photos, completed=status.done + status.failed, description=str(status))

        yield move


def _show(report: Report, out: Path) -> None:
    if report.failures:
        table = Table("photo", "edit", "failed", "why", title_justify="left")
        for one in report.failures[:SHOWN]:
            table.add_row(*map(_shown, (one.photo, one.edit or "all", *one.failure)))
        console.print(table)
        if len(report.failures) > SHOWN:
            say(f"and {len(report.failures) - SHOWN} more")
    kinds = "".join(f", {count} {kind}" for kind, count in report.kinds.items())
    before = f" ({report.present} of them before)" if report.present else ""
    say(
        f"{report.done} of {report.photos} photos done{before}{kinds}; "
        f"wrote {report.results} results to {out} in {report.seconds:.1f} s"
    )


def _shown(text: str) -> Text:
    """Text with names of files in it, which may hold anything."""
    return Text("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))
