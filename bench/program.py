"""The common parts of the programs `python -m bench.…`: options, lines of progress, files of results, tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import tyro
from pydantic import TypeAdapter, ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from engines.bundle.manifest import first_error
from engines.bundle.provenance import provenance
from engines.errors import EdgeditError
from engines.store import write

Options = TypeVar("Options")
Result = dict[str, Any]

MAX_BYTES = 32 * 2**20
"""A larger file is none of a benchmark."""

_OBJECT = TypeAdapter(Result)

console = Console(highlight=False, soft_wrap=True, markup=False)


def table(left: Iterable[str], right: Iterable[str], title: str | None = None) -> Table:
    """An empty table for a terminal of 80 columns or more: columns of text, which wraps, then columns of figures."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for heading in left:
        made.add_column(heading, min_width=10)
    for heading in right:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def say(line: str) -> None:
    """Prints a line of progress."""
    console.print(line)


def program(run: Callable[[Options], object], options: type[Options], module: str) -> None:
    """Runs a program with the options of its command line; an error that a user can mend is one line and status 1."""
    try:
        run(tyro.cli(options, prog=f"python -m {module}", config=(tyro.conf.FlagCreatePairsOff,)))
    except (EdgeditError, ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


def named(option: str, items: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Splits the values NAME=DIRECTORY of an option.

    Raises:
        EdgeditError: for a value of another form.
    """
    for item in items:
        name, _, path = item.partition("=")
        if not path:
            raise EdgeditError(f"{option} {item} must be NAME=DIRECTORY")
        yield name, Path(path)


def save(path: Path, result: Result, *, allow_nan: bool = True) -> None:
    """Writes a result as JSON, whole or not at all."""
    write(path, (json.dumps(result, indent=1, allow_nan=allow_nan) + "\n").encode())


def read_json(path: Path) -> Result:
    """The object in a JSON file.

    Raises:
        EdgeditError: if there is none, or it is too large for a result.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise EdgeditError(f"{path} has {size} bytes, a result at most {MAX_BYTES}: it is none")
        return _OBJECT.validate_json(path.read_bytes())
    except OSError as error:
        raise EdgeditError(f"cannot read {path}: {error.strerror or error}") from None
    except ValidationError as error:
        raise EdgeditError(f"{path} holds no JSON object: {first_error(error)}") from None


class Rows:
    """A result whose rows add up over several runs: a row stays until one of the same key is measured again.

    Args:
        path: its file, of which nothing but the rows is read.
        key: fields of a row that tell it from others.

    Raises:
        EdgeditError: if the file is there and is no such result.
    """

    def __init__(self, path: Path, *key: str) -> None:
        self.path, self.key = path, key
        self._rows: dict[tuple[Any, ...], Result] = {}
        try:
            self.add(read_json(path)["rows"] if path.exists() else [])
        except (KeyError, TypeError):
            raise EdgeditError(f"{path} holds no rows of this program; name another file") from None

    def __iter__(self) -> Iterator[Result]:
        return iter(self._rows.values())

    def add(self, rows: Iterable[Result]) -> None:
        """Adds rows, each in place of that of the same key."""
        self._rows |= {tuple(row[name] for name in self.key): row for row in rows}

    def save(self, command: str, **facts: Any) -> None:
        """Writes all rows, with the origin of the newest and other facts."""
        save(self.path, provenance(command) | facts | {"rows": list(self)})
