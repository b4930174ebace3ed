"""What the verbs share."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from edgedit.editor import PORTRAIT_BUNDLE, Editor, open_bundle
from engines.bundle import Bundle
from engines.errors import OutputError

console = Console(highlight=False, soft_wrap=True)

BUNDLE_HINT = "(default: the portrait bundle)"
"""What the help says in place of the path that the portrait bundle is installed under."""

BundlePosition = Annotated[
    tyro.conf.Positional[Path], tyro.conf.arg(metavar="[DIRECTORY]", help_behavior_hint=BUNDLE_HINT)
]
OptionalFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Options of every verb."""

    json: OptionalFile = None
    """Also write the summary to this file."""


@dataclass(frozen=True, kw_only=True)
class Running(Reporting):
    """Options of the verbs that run a bundle."""

    bundle: Annotated[Path, tyro.conf.arg(aliases=("-b",), metavar="DIRECTORY", help_behavior_hint=BUNDLE_HINT)] = (
        PORTRAIT_BUNDLE
    )
    """The bundle to run."""
    runtime: str = "onnxruntime"
    """What runs the graphs."""
    threads: int = 0
    """Threads for one network, never more than this process may use by its affinity and its control group's quota; 0:
    one per core."""
    require_signed: Annotated[
        Path | None, tyro.conf.arg(metavar="KEY.pem", help_behavior_hint="(default: no signature is asked for)")
    ] = None
    """Refuse a bundle that the holder of this public key has not signed as it is."""

    def load(self) -> Editor:
        """The editor of the bundle.

        Raises:
            EdgeditError: if the bundle or the runtime cannot be used.
        """
        options = {"threads": self.threads} if self.threads else {}
        return Editor.load(self.bundle, self.runtime, require_signed=self.require_signed, progress=say, **options)


def say(line: str) -> None:
    """Prints a line of progress."""
    console.print(line, markup=False)


def opened(path: Path, verify: bool = True) -> Bundle:
    """`edgedit.editor.open_bundle`, which says what takes seconds."""
    return open_bundle(path, verify, say)


def elsewhere(bundle: Bundle, named: Path) -> str:
    """Where a bundle is that was completed in another folder than the one that was named, to end a line; else ""."""
    return "" if bundle.path == named.resolve() else f", in {bundle.path}"


def check_output(path: Path, suffixes: Collection[str] = ()) -> None:
    """Finds out before any work whether a file can be written; writing it may still fail.

    Args:
        path: the file.
        suffixes: those it may end in, in lower case; empty for any.

    Raises:
        OutputError: if its name, or the folder it goes to, will not do.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise OutputError(f"cannot write {path}: its name must end in {', '.join(suffixes)}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a directory")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: {path.parent} does not let you write")
