"""What the verbs share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from edgedit.editor import DEMO_BUNDLE, Editor

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Options of every verb."""

    json: Path | None = None
    """Also write the summary to this file."""


@dataclass(frozen=True, kw_only=True)
class Running(Reporting):
    """Options of the verbs that run a bundle."""

    bundle: Annotated[Path, tyro.conf.arg(aliases=("-b",))] = DEMO_BUNDLE
    """Directory of the bundle; the default is the demo model that comes with the package."""
    runtime: str = "onnxruntime"
    """What runs the graphs."""
    threads: int = 0
    """Threads for one network; 0 leaves it to the runtime."""

    def load(self) -> Editor:
        """The editor of the bundle.

        Raises:
            EdgeditError: if the bundle or the runtime cannot be used.
        """
        options = {"threads": self.threads} if self.threads else {}
        return Editor.load(self.bundle, self.runtime, **options)
