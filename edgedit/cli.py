"""The `edgedit` command: one typed dataclass per verb.

Every verb says what it will do, does it, prints a summary (and writes it with `--json`), and on a user's mistake prints
one line and exits with 1; a malformed command line exits with 2.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from rich.console import Console

from edgedit.commands.bundles import Directions, Export, Info
from edgedit.commands.photos import Demo, Edit, Reconstruct
from edgedit.commands.training import Train
from engines.errors import EdgeditError
from engines.files import write

Verb = (
    Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[Directions, tyro.conf.subcommand("directions")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Train, tyro.conf.subcommand("train")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    verb: Any = tyro.cli(
        Verb,  # type: ignore[arg-type]
        prog="edgedit",
        description="Edits real photos by StyleGAN2 inversion, and takes such models from training to engines.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    shown: set[str] = set()

    def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            errors.print(f"warning: {message}", markup=False)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning  # type: ignore[assignment]
            summary = verb.run()
        if verb.json is not None:
            write(verb.json, (json.dumps(summary, indent=1) + "\n").encode())
    except (EdgeditError, ValueError, FileNotFoundError, FloatingPointError, ModuleNotFoundError) as error:
        errors.print(f"error: {' '.join(str(error).split())}", markup=False)
        return 1
    except KeyboardInterrupt:
        errors.print("stopped")
        return 130
    return int(summary.get("exit_status", 0))


if __name__ == "__main__":
    sys.exit(main())
