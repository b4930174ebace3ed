"""The options, lines and tables that the verbs share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from edgedit.editor import PORTRAIT_BUNDLE, Editor, open_bundle
from engines.bundle import Bundle
from engines.errors import CredentialsError, EdgeditError, EngineError
from engines.packages import Progress

STANDARD_OUTPUT = Path("-")
"""The path that `--json` takes for standard output."""


class Lines(Console):
    """Output whose reader may go away: that ends the verb, as any error of writing does, and not the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Screen(Lines):
    """Tables are drawn on a terminal; in a pipe, or on one that cannot, they are lines of columns that nothing cuts."""

    @property
    def draws(self) -> bool:
        """Whether this is a terminal that moves its cursor."""
        return self.is_terminal and not self.is_dumb_terminal

    def print(self, *objects: Any, **options: Any) -> None:
        tables = [one for one in objects if isinstance(one, Table)]
        if tables and not self.draws:
            for table in tables:
                table.box, table.pad_edge = None, False
                for column in table.columns:
                    column.no_wrap, column.overflow = True, "ignore"
            plain = Lines(file=self.file, force_terminal=False, width=_WIDEST, highlight=False, markup=False)
            plain.print(*objects, **options)
        else:
            super().print(*objects, **options)


_WIDEST = 10_000
"""More columns than any table has."""

console = Screen(highlight=False, soft_wrap=True, markup=False)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}

BUNDLE_HINT = "(default: the portrait bundle)"
"""The words of the help in place of the path that the portrait bundle is installed under."""

BundleOption = Annotated[
    Path, tyro.conf.arg(name="bundle", aliases=("-b",), metavar="BUNDLE", help_behavior_hint=BUNDLE_HINT)
]
OwnBundle = Annotated[Path, tyro.conf.arg(name="bundle", aliases=("-b",), metavar="BUNDLE")]
"""The bundle of the verbs that write into it."""
Graphs = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")]
PublicKey = Annotated[
    Path | None, tyro.conf.arg(metavar="KEY.pem", help_behavior_hint="(default: no signature is asked for)")
]
OptionalText = Annotated[str | None, tyro.conf.arg(help_behavior_hint="")]
OptionalBundle = Annotated[Path | None, tyro.conf.arg(metavar="BUNDLE", help_behavior_hint="")]
OptionalFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Options of every verb."""

    json: OptionalFile = None
    """Also write the summary to this file; "-" is standard output, where nothing else is then printed."""


@dataclass(frozen=True, kw_only=True)
class Running(Reporting):
    """Options of the verbs that run a bundle."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle to run."""
    runtime: str = "onnxruntime"
    """The runtime of the graphs."""
    precision: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: the runtime's own choice)")] = None
    """Precision of the engines to run, such as int8; without it ONNX Runtime and OpenVINO run the bundle's own
    graphs."""
    threads: int = 0
    """Threads for one network, never more than this process may use by its affinity and its control group's quota; 0:
    one per core."""
    public_key: PublicKey = None
    """Refuse a bundle that the holder of this public key has not signed as it is."""

    def load(self) -> Editor:
        """The editor of the bundle.

        Raises:
            EdgeditError: if the bundle or the runtime cannot be used.
        """
        options = {name: value for name in ("precision", "threads") if (value := getattr(self, name))}
        return Editor.load(self.bundle, self.runtime, public_key=self.public_key, progress=say, **options)


@dataclass(frozen=True, kw_only=True)
class Crediting(Running):
    """Options of the verbs whose pictures say that they were edited."""

    private_key: OptionalFile = None
    """A key (PEM) that signs the picture's Content Credentials, with --certificate; without it that is a key of this
    user's own, made once, which nobody vouches for."""
    certificate: OptionalFile = None
    """The certificate of --private-key (PEM), then those that vouch for it."""
    no_edit_list: bool = False
    """Let the credentials say that the picture was edited, but not how: no edits, no digest of the original."""
    no_credentials: bool = False
    """Write nothing of the edit into the file; to say that the picture was edited is then up to you."""

    def wants_credentials(self) -> bool:
        """Whether the pictures say so.

        Raises:
            CredentialsError: if how is said beside that they do not.
        """
        if self.no_credentials and (self.private_key or self.certificate or self.no_edit_list):
            raise CredentialsError("--private-key, --certificate and --no-edit-list do not go with --no-credentials")
        return not self.no_credentials

    def signing(self) -> dict[str, Any]:
        """Arguments of `engines.photo.credentials.Credentials`."""
        return {"private_key": self.private_key, "certificate": self.certificate, "edits": not self.no_edit_list}


@contextmanager
def needing(verb: str, extras: str) -> Iterator[None]:
    """Runs what needs packages of extras.

    Raises:
        EdgeditError: for a package that is not installed, with the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise EdgeditError(f"`{verb}` needs {error.name}: pip install 'edgedit[{extras}]'") from error


def say(line: str) -> None:
    """Prints a line of progress."""
    console.print(line)


@contextmanager
def progressing(total: int) -> Iterator[Progress]:
    """Shows how far a known number of steps is: as a bar on a terminal, else as a line per step."""
    if not console.draws:
        yield say
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda line: bar.update(task, advance=1, description=line)


def opened(path: Path, verify: bool = True) -> Bundle:
    """`edgedit.editor.open_bundle`, which says what takes seconds."""
    return open_bundle(path, verify, say)


def elsewhere(bundle: Bundle, named: Path) -> str:
    """The end of a line that names the folder in which a bundle was completed, if it is another than the named one."""
    return "" if bundle.path == named.resolve() else f", in {bundle.path}"


def parse_size(name: str, text: str | None) -> int | None:
    """Bytes of "512M", "2G" or "1000000".

    Raises:
        EngineError: if it is not a size; the message names the option.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,3})?)([KMG]?)B?", text.strip().upper())
    if match is None or not float(match[1]):
        raise EngineError(f"{name} {text} is not a size; write it as 512M or 2G")
    return int(float(match[1]) * _UNITS[match[2]])
