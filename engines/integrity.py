"""What a bundle and the engine folders inside it share: files that are checked against a manifest's entries."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engines.files import open_regular
from engines.manifest import FileEntry

COPY_AGAIN = "copy the bundle again"


@dataclass(frozen=True)
class FileProblem:
    """One file of a bundle that is not as the manifest says."""

    file: str
    """Its path inside the bundle."""
    kind: Literal["missing", "irregular", "size", "digest", "unlisted", "invalid"]
    message: str
    advice: str = COPY_AGAIN

    def __str__(self) -> str:
        return f"{self.file} {self.message}"

    def refusal(self, owner: str) -> str:
        """One line for an error; `owner` is whose file it is."""
        return f"{owner}: {self}; {self.advice}"


def check_entry(root: Path, name: str, entry: FileEntry, advice: str = COPY_AGAIN) -> FileProblem | None:
    """Compares a file with the size and digest it should have; None if it has them. Parses nothing."""
    try:
        descriptor = open_regular(root, name)
    except FileNotFoundError:
        return FileProblem(name, "missing", "is missing", advice)
    except OSError as error:
        return FileProblem(name, "irregular", f"cannot be read: {error.strerror or error}", advice)
    with open(descriptor, "rb") as stream:
        size = os.fstat(descriptor).st_size
        if size != entry.bytes:
            return FileProblem(name, "size", f"has {size} bytes instead of {entry.bytes}", advice)
        if hashlib.file_digest(stream, "sha256").hexdigest() != entry.sha256:
            return FileProblem(name, "digest", "is damaged (its digest differs)", advice)
    return None


def read_regular(root: Path, relative: str, limit: int, advice: str = COPY_AGAIN) -> bytes | FileProblem:
    """The content of a regular file of at most `limit` bytes that no link leads to, or what is wrong with it.

    Args:
        root: the bundle's directory.
        relative: the file's path inside it.
        limit: bytes.
        advice: what to do if it cannot be read.
    """
    try:
        with open(open_regular(root, relative), "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > limit:
                return FileProblem(relative, "size", f"has {size} bytes instead of at most {limit}", advice)
            return stream.read(limit + 1)
    except FileNotFoundError:
        return FileProblem(relative, "missing", "is missing", advice)
    except OSError as fault:
        return FileProblem(relative, "irregular", f"cannot be read: {fault.strerror or fault}", advice)


def read_entry(root: Path, relative: str, entry: FileEntry, advice: str = COPY_AGAIN) -> bytes | FileProblem:
    """The content of a file, read once and checked: these very bytes have the entry's size and digest.

    Arguments as `read_regular`.
    """
    data = read_regular(root, relative, entry.bytes, advice)
    if isinstance(data, FileProblem):
        return data
    if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        return FileProblem(relative, "digest", "is damaged (its digest differs)", advice)
    return data
