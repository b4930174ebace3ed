"""The journal of a batch: which results are done and what failed, so that a job that was killed goes on.

A line is written, and reaches the disk, before the result that it tells of takes its place. A result counts as done if
the file has the digest of its line: a kill in between, or a file that was lost or damaged since, has it made again.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from engines.errors import OutputError
from engines.store import Digest, cannot_write


class Failure(NamedTuple):
    """A failure of a photo, or of one edit of it."""

    kind: str
    """The kind of failure in two or three words, for counting."""
    why: str
    """One line that says what was wrong and what to do."""


class Entry(NamedTuple):
    """The newest line of a result, or of a photo."""

    recipe: str
    """Digest of all that the result is made with, but for the photo."""
    photo: str
    """SHA-256 of the photo's file."""
    digest: Digest | None
    """The digest of the result's file; None where it failed, and for a photo as a whole."""
    failure: Failure | None
    """The failure; None where it is done, or has failed no longer."""


class Journal:
    """The lines of `path`, and more of them; a last line that was cut by a kill is dropped.

    Memory grows by some hundred bytes with every result.

    Raises:
        OutputError: if it cannot be read or written, or a line of it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[tuple[str, str], Entry] = {}
        try:
            path.touch()
            end = 0
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if not line.endswith(b"\n"):
                        break
                    self._read(line, number)
                    end += len(line)
            os.truncate(path, end)
            # Without a buffer, which would be written once more when the file is closed after a disk was full.
            self._stream = path.open("ab", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from error

    def _read(self, line: bytes, number: int) -> None:
        try:
            said = json.loads(line)
            digest = failure = None
            if "failed" in said:
                failure = Failure(str(said["failed"]["kind"]), str(said["failed"]["why"]))
            elif "sha256" in said:
                digest = Digest(str(said["sha256"]), int(said["size"]))
            key = str(said["photo"]), str(said["edit"])
            self._entries[key] = Entry(str(said["recipe"]), str(said["of"]), digest, failure)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise OutputError(
                f"{self._path}:{number} is damaged; move that file away, and all results are made again"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()

    def entry(self, photo: str, edit: str) -> Entry | None:
        """The newest entry of a photo's result; of the photo as a whole with the edit ""."""
        return self._entries.get((photo, edit))

    def write(self, photo: str, edit: str, entry: Entry) -> None:
        """Appends a line; it is on the disk when this returns.

        Raises:
            OutputError: if it cannot be written.
        """
        said: dict[str, Any] = {"photo": photo, "edit": edit, "recipe": entry.recipe, "of": entry.photo}
        if entry.failure:
            said["failed"] = entry.failure._asdict()
        elif entry.digest:
            said |= entry.digest._asdict()
        try:
            line = json.dumps(said).encode() + b"\n"
            if self._stream.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._entries[photo, edit] = entry
