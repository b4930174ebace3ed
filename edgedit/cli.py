"""The `edgedit` command: one typed dataclass per verb.

Every verb says what it will do, does it, prints a summary (and writes it with `--json`). A user's mistake is one line
on stderr that begins with "error:".
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import tyro
from rich.console import Console
from tyro import _errors as parsing

from edgedit.commands.batching import Batch
from edgedit.commands.benching import Bench
from edgedit.commands.building import Build, Estimate
from edgedit.commands.bundles import Info
from edgedit.commands.common import STANDARD_OUTPUT, console
from edgedit.commands.completing import Completion
from edgedit.commands.credentials import CredentialsOf
from edgedit.commands.directions import Directions, spelt_out
from edgedit.commands.doctor import Doctor
from edgedit.commands.examples import EXAMPLES
from edgedit.commands.exporting import Export
from edgedit.commands.importing import Import
from edgedit.commands.inspecting import Inspect
from edgedit.commands.packing import Pack
from edgedit.commands.photos import Demo, Edit, Reconstruct
from edgedit.commands.refitting import Refit
from edgedit.commands.serving import Serve
from edgedit.commands.signing import Sign, Verify
from edgedit.commands.studio import Studio
from edgedit.commands.training import Evaluate, Train
from engines.errors import EdgeditError, OutputError, StrengthWarning
from engines.store import check_output, write

Verb = (
    Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Batch, tyro.conf.subcommand("batch")]
    | Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[Studio, tyro.conf.subcommand("studio")]
    | Annotated[Directions, tyro.conf.subcommand("directions")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Estimate, tyro.conf.subcommand("estimate")]
    | Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Refit, tyro.conf.subcommand("refit")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Pack, tyro.conf.subcommand("pack")]
    | Annotated[Sign, tyro.conf.subcommand("sign")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[CredentialsOf, tyro.conf.subcommand("credentials")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Completion, tyro.conf.subcommand("completion")]
)

_CONFIG = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.OmitSubcommandPrefixes,
    # Leaving an option out says the same as the words None and --no-...
    tyro.conf.DisallowNone,
    tyro.conf.FlagCreatePairsOff,
)


DONE, FAILED, MALFORMED, STOPPED, UNREAD = 0, 1, 2, 130, 141
STATUSES = {
    DONE: "done",
    FAILED: "refused or failed, and a line that begins with `error:` says why; or what was checked does not hold",
    MALFORMED: "the command line is malformed",
    STOPPED: "stopped by Ctrl-C",
    UNREAD: "whatever read the output went away",
}
"""The meanings of the exit status."""


class _UsageError(Exception):
    """The command line is malformed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments = spelt_out(list(sys.argv[1:] if arguments is None else arguments))
    errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    shown: list[str] = []

    def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
        line = " ".join(str(message).split())
        if line not in shown:
            shown.append(line)
            errors.print(f"warning: {line}")

    try:
        verb = parse(arguments)
        if verb is None:
            return DONE
        if verb.json is not None and verb.json != STANDARD_OUTPUT:
            check_output(verb.json)
            if verb.json == getattr(verb, "out", None):
                raise OutputError(f"--json and --out both name {verb.json}; give each its own file")
        with warnings.catch_warnings():
            warnings.simplefilter("always", StrengthWarning)
            warnings.showwarning = show_warning  # type: ignore[assignment]
            # What would be printed goes where it is still seen.
            console.stderr = verb.json == STANDARD_OUTPUT
            summary = verb.run() | {"warnings": shown}
        if verb.json is not None:
            text = json.dumps(summary, indent=1) + "\n"
            if verb.json == STANDARD_OUTPUT:
                sys.stdout.write(text)
            else:
                write(verb.json, text.encode())
        sys.stdout.flush()
    except _UsageError as error:
        errors.print(f"error: {error}")
        return MALFORMED
    except BrokenPipeError:
        # Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except (EdgeditError, ValueError, OSError, FloatingPointError, ModuleNotFoundError) as error:
        errors.print(f"error: {_line(error)}")
        return FAILED
    except KeyboardInterrupt:
        errors.print("stopped")
        return STOPPED
    finally:
        console.stderr = False
    if problem := summary.get("error"):
        errors.print(f"error: {problem}")
        return FAILED
    return DONE


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def parse(arguments: list[str]) -> Any:
    """The verb that a command line names, ready to run; None once --help has been printed.

    Raises:
        _UsageError: if it is malformed.
    """
    words = _verb(arguments)

    def refuse(event: parsing.ParseErrorEvent) -> NoReturn:
        raise _UsageError(f"{_message(event)}; see `{' '.join(('edgedit', *words))} --help`")

    try:
        # tyro has no exception of its own for this, and draws a box; what it gives is this hook, which pyproject.toml
        # pins the version for.
        with parsing.on_parse_error(refuse):
            verb = command_line(arguments)
    except SystemExit:
        if not words:
            console.print("exit status:")
            for status, meaning in STATUSES.items():
                console.print(f"  {status:3d}  {meaning}")
        console.print(f"example: {EXAMPLES[' '.join(words)]}")
        return None
    while hasattr(verb, "verb"):
        verb = verb.verb
    return verb


def command_line(arguments: list[str]) -> Any:
    """The verb that tyro makes of a command line; it ends the program (SystemExit) once it has printed something."""
    return tyro.cli(
        Verb,  # type: ignore[arg-type]
        prog="edgedit",
        description="Edits real photos by StyleGAN2 inversion, and takes such models from training to engines.",
        args=arguments,
        config=_CONFIG,
    )


def _verb(arguments: list[str]) -> list[str]:
    """The leading words that name a verb, or several verbs."""
    words: list[str] = []
    for word in arguments:
        if " ".join((*words, word)) not in EXAMPLES:
            break
        words.append(word)
    return words


def _message(event: parsing.ParseErrorEvent) -> str:
    """The reason why a command line is refused, on one line."""
    unknown = event.tokens if isinstance(event, parsing.UnrecognizedArgs) else []
    if isinstance(event, parsing.MissingArgs):
        unknown = event.unrecognized_tokens
    if unknown:
        return f"Unrecognized options: {' '.join(unknown)}"
    if isinstance(event, parsing.MissingArgs):
        lacking = [context.arg for context in event.missing_arguments]
        names = [f"{a.display_name()}{'' if a.is_positional() else f' {a.lowered.metavar}'}" for a in lacking]
        return f"Missing required {' and '.join(names)}"
    if isinstance(event, parsing.MissingSubcommand):
        return f"Expected one of {{{', '.join(event.subcommand_spec.parser_from_name)}}}"
    if isinstance(event, parsing.BadValue):
        return f"Missing value for {event.argument.display_name()}"
    if isinstance(event, parsing.InvalidChoice):
        known = ", ".join(map(repr, event.choices))
        return f"invalid choice {event.value!r} for {event.argument.display_name()}; there are {known}"
    if isinstance(event, parsing.InstantiationFailure):
        reason, argument = " ".join(event.message.split()), event.argument
        if argument is None:
            return reason
        value = re.search(r"'([^']*)'\]?(?:$|\. Got errors)", reason)
        problem = f"{value[1]!r} is not {argument.lowered.metavar}" if value else reason
        return f"{argument.display_name()}: {problem}"
    return f"malformed command line ({type(event).__name__})"


if __name__ == "__main__":
    sys.exit(main())
