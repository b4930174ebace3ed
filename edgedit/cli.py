"""The `edgedit` command: one typed dataclass per verb.

Every verb says what it will do, does it, prints a summary (and writes it with `--json`). A user's mistake is one line
on stderr that begins with "error:", and exit status 1; for a malformed command line it is 2.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, get_args

import tyro
from rich.console import Console

from edgedit.commands.benching import Bench
from edgedit.commands.building import Build, Plan
from edgedit.commands.bundles import Export, Info
from edgedit.commands.common import check_output
from edgedit.commands.directions import Directions, spelt_out
from edgedit.commands.importing import Import
from edgedit.commands.inspecting import Inspect
from edgedit.commands.photos import Demo, Edit, Reconstruct
from edgedit.commands.refitting import Refit
from edgedit.commands.serving import Serve
from edgedit.commands.signing import Sign, Verify
from edgedit.commands.training import Train
from engines.errors import EdgeditError, OutputError, StrengthWarning
from engines.store import write

Verb = (
    Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[Directions, tyro.conf.subcommand("directions")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Refit, tyro.conf.subcommand("refit")]
    | Annotated[Plan, tyro.conf.subcommand("plan")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Sign, tyro.conf.subcommand("sign")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
)

_CONFIG = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.OmitSubcommandPrefixes,
    # Leaving an option out says the same as the words None and --no-...
    tyro.conf.DisallowNone,
    tyro.conf.FlagCreatePairsOff,
)
_VERBS = tuple(verb.__metadata__[0].name for verb in get_args(Verb))
_WRONG_TYPE = re.compile(r"no type matching (\w+) could be instantiated from \[(.*?)\].*")
_BORDER = "╰╯│─- "
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _UsageError(Exception):
    """The command line is malformed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = spelt_out(list(sys.argv[1:] if arguments is None else arguments))
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    shown: list[str] = []

    def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
        line = " ".join(str(message).split())
        if line not in shown:
            shown.append(line)
            errors.print(f"warning: {line}", markup=False)

    try:
        verb = _parse(arguments)
        if verb is None:
            return 0
        while hasattr(verb, "verb"):
            verb = verb.verb
        if verb.json is not None:
            check_output(verb.json)
            if verb.json == getattr(verb, "out", None):
                raise OutputError(f"--json and --out both name {verb.json}; give each its own file")
        with warnings.catch_warnings():
            warnings.simplefilter("always", StrengthWarning)
            warnings.showwarning = show_warning  # type: ignore[assignment]
            summary = verb.run() | {"warnings": shown}
        if verb.json is not None:
            write(verb.json, (json.dumps(summary, indent=1) + "\n").encode())
    except _UsageError as error:
        errors.print(f"error: {error}", markup=False)
        return 2
    except (EdgeditError, ValueError, OSError, FloatingPointError, ModuleNotFoundError) as error:
        errors.print(f"error: {_line(error)}", markup=False)
        return 1
    except KeyboardInterrupt:
        errors.print("stopped")
        return 130
    if problem := summary.get("error"):
        errors.print(f"error: {problem}", markup=False)
        return 1
    return 0


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _parse(arguments: list[str]) -> Any:
    """The verb, or None once --help has been printed.

    Raises:
        _UsageError: with one line in place of the box that tyro draws.
    """
    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            return tyro.cli(
                Verb,  # type: ignore[arg-type]
                prog="edgedit",
                description="Edits real photos by StyleGAN2 inversion, and takes such models from training to engines.",
                args=arguments,
                config=_CONFIG,
            )
    except SystemExit as stop:
        if not stop.code:
            return None
        named = f" {arguments[0]}" if arguments and arguments[0] in _VERBS else ""
        raise _UsageError(f"{_first_part(drawn.getvalue())}; see `edgedit{named} --help`") from None


def _first_part(box: str) -> str:
    """What a box says between its title and its first rule, on one line; without UTF-8 a box is two rules."""
    parts: list[list[str]] = [[]]
    for line in _COLOUR.sub("", box).splitlines():
        if line.startswith("╭") or (line.strip() and not line.strip(_BORDER)):
            parts.append([])
        else:
            parts[-1] += line.strip("│ ").split()
    # Drawn in UTF-8, the title is in the border.
    first, *rest = [*filter(None, parts), [], []]
    words = first if "╭" in box else rest[0] or first
    message = " ".join(words).removeprefix("Error parsing ").rstrip(".")
    return _WRONG_TYPE.sub(r"\2 is not \1", message)


if __name__ == "__main__":
    sys.exit(main())
