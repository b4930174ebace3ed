"""Files that are checked against a manifest's entries, in a bundle and in the engine folders inside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from engines.bundle.manifest import FileEntry
from engines.store import Digest

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
        root: the directory.
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
        descriptor = open_regular(root, name)
    except FileNotFoundError:
        return FileProblem(name, "missing", "is missing", advice)
    except OSError as error:
        return FileProblem(name, "irregular", f"cannot be read: {error.strerror or error}", advice)
    with open(descriptor, "rb") as stream:
        size = os.fstat(descriptor).st_size
        if size != entry.bytes:
            return FileProblem(name, "size", f"has {size} bytes instead of {entry.bytes}", advice)
        if Digest.read(stream).sha256 != entry.sha256:
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
    except OSError as error:
        return FileProblem(relative, "irregular", f"cannot be read: {error.strerror or error}", advice)


def read_entry(root: Path, relative: str, entry: FileEntry, advice: str = COPY_AGAIN) -> bytes | FileProblem:
    """The content of a file, read once and checked: these very bytes have the entry's size and digest.

    Arguments as `read_regular`.
    """
    data = read_regular(root, relative, entry.bytes, advice)
    if isinstance(data, FileProblem):
        return data
    if Digest.of(data) != (entry.sha256, entry.bytes):
        return FileProblem(relative, "digest", "is damaged (its digest differs)", advice)
    return data
