"""Files that are checked against a manifest's entries, in a bundle and in the engine folders inside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Literal

from engines.bundle.manifest import FileEntry
from engines.errors import EdgeditError
from engines.store import Digest

COPY_AGAIN = "copy the bundle again"


@dataclass
class FileProblem(Exception):
    """One file of a bundle that is not as the manifest says."""

    file: str
    """The file's path inside the bundle."""
    kind: Literal["missing", "irregular", "size", "digest", "unlisted", "invalid"]
    message: str
    advice: str = COPY_AGAIN

    def __str__(self) -> str:
        return f"{self.file} {self.message}"

    def refusal(self, owner: str) -> str:
        """One line for an error; `owner` is whose file it is."""
        return f"{owner}: {self}; {self.advice}"


@contextmanager
def refusing(owner: str, error: type[EdgeditError]) -> Iterator[None]:
    """Turns a problem that is raised in the block into an error for the user; `owner` is whose file it is."""
    try:
        yield
    except FileProblem as problem:
        raise error(problem.refusal(owner)) from None


@contextmanager
def _opened(root: Path, relative: str, advice: str) -> Iterator[BufferedReader]:
    """A regular file that no link leads to, open; FileProblem where it cannot be read."""
    try:
        with open(open_regular(root, relative), "rb") as stream:
            yield stream
    except FileNotFoundError:
        raise FileProblem(relative, "missing", "is missing", advice) from None
    except OSError as error:
        raise FileProblem(relative, "irregular", f"cannot be read: {error.strerror or error}", advice) from None


def open_regular(root: Path, relative: str) -> int:
    """A descriptor of a regular file that no symbolic link leads to; OSError otherwise."""
    current = root
    for part in PurePosixPath(relative).parts[:-1]:
        current = current / part
        if current.is_symlink():
            raise OSError("it lies behind a symbolic link")
    path = root / relative
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError("it is a symbolic link" if stat.S_ISLNK(mode) else "it is not a regular file")
    return os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))


def walk(root: Path, prefix: str = "", without: str | None = None) -> Iterator[tuple[str, int]]:
    """Relative path and `st_mode` of everything below a directory that is not itself a directory; follows no links.

    Args:
        prefix: put before the paths.
        without: what a path that is passed over begins with, folders and all: they may come and go meanwhile.
    """
    with os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            name = prefix + entry.name
            if without is not None and name.startswith(without):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from walk(root / entry.name, f"{name}/", without)
            else:
                yield name, entry.stat(follow_symlinks=False).st_mode


def check_entry(root: Path, name: str, entry: FileEntry, advice: str = COPY_AGAIN) -> FileProblem | None:
    """Compares a file with the size and digest it should have; None if it has them. Parses nothing."""
    try:
        with _opened(root, name, advice) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != entry.bytes:
                return FileProblem(name, "size", f"has {size} bytes instead of {entry.bytes}", advice)
            if Digest.read(stream).sha256 != entry.sha256:
                return FileProblem(name, "digest", "is damaged (its digest differs)", advice)
    except FileProblem as problem:
        return problem
    return None


def read_regular(root: Path, relative: str, limit: int, advice: str = COPY_AGAIN) -> bytes:
    """The content of a regular file of at most `limit` bytes that no link leads to.

    Args:
        advice: what to do if it cannot be read.

    Raises:
        FileProblem: if it is not such a file.
    """
    with _opened(root, relative, advice) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            raise FileProblem(relative, "size", f"has {size} bytes instead of at most {limit}", advice)
        return stream.read(limit + 1)


def read_entry(root: Path, relative: str, entry: FileEntry, advice: str = COPY_AGAIN) -> bytes:
    """The content of a file, read once and checked: these very bytes have the entry's size and digest.

    Arguments and errors as `read_regular`.
    """
    data = read_regular(root, relative, entry.bytes, advice)
    if Digest.of(data) != (entry.sha256, entry.bytes):
        raise FileProblem(relative, "digest", "is damaged (its digest differs)", advice)
    return data
