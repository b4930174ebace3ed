"""The one place that writes: files and folders that appear whole or not at all, locks, digests, and where caches live.

Importing it needs the standard library alone: serving images that have nothing else copy this module.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, Self

from engines.errors import OutputError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_CHUNK = 2**22


def cache_folder() -> Path:
    """The folder of this user's caches: EDGEDIT_CACHE, or the system's cache folder."""
    if own := os.environ.get("EDGEDIT_CACHE"):
        return Path(own)
    from platformdirs import user_cache_path

    return user_cache_path("edgedit", appauthor=False, opinion=False)


def cannot_write(what: object, error: OSError) -> OutputError:
    """The error for a user that a file or folder cannot be written, and why."""
    return OutputError(f"cannot write {what}: {error.strerror or error}")


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


def write(path: str | Path, data: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
        OutputError: if it cannot be written; what was at `path` is then unchanged.
    """
    try:
        with atomic_file(path) as temporary, temporary.open("xb") as stream:
            stream.write(data)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """The path of a file to write beside `path`, which is renamed to it when the block ends, or removed if it raises.

    Raises:
        OSError: if it cannot be renamed; what was at `path` is then unchanged.
    """
    temporary = _beside(Path(path))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, named `.<name>.<random>`, which is removed in the end unless it was renamed.

    Raises:
        OSError: if it cannot be made.
    """
    scratch = _beside(path)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to fill, which takes its place when the block ends, or is removed if it raises.

    Raises:
        OSError: if it cannot be made or renamed; what was at `path` is then unchanged.
    """
    with scratch_directory(path) as scratch:
        yield scratch
        replace_directory(scratch, path)


def replace_directory(new: Path, place: Path) -> None:
    """Renames a folder of `scratch_directory` into place.

    A folder cannot be renamed over one that is not empty: the old one steps aside, as `<new>.old`, and back if that
    fails. Only a process killed between the two renames leaves it there.

    Raises:
        OSError: if it cannot be renamed; what was there is then unchanged.
    """
    aside = new.with_name(f"{new.name}.old")
    replaced = os.path.lexists(place)
    if replaced:
        place.rename(aside)
    try:
        new.rename(place)
    except BaseException:
        if replaced:
            aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


@contextmanager
def lock(path: Path, busy: Callable[[str], object] = lambda owner: None) -> Iterator[None]:
    """Lets one process at a time into a block.

    The system itself drops the lock when its process dies, so that none is ever stale. The package `filelock` empties
    the file before it has the lock, and so could not say who holds it.

    Args:
        path: the lock's file, which stays; whoever holds the lock may remove it.
        busy: called before waiting for another process, with that one's number, "" where it is not known; it may raise
            instead.
    """
    while True:
        with path.open("a+b") as stream:
            if not _hold(stream, wait=False):
                stream.seek(0)
                owner = stream.read(32).decode("ascii", "replace").strip()
                busy(owner if owner.isdigit() else "")
                while not _hold(stream, wait=True):
                    pass
            if not _is_at(stream, path):
                # The last holder removed the file between our opening and locking it.
                continue
            stream.truncate(0)
            stream.write(f"{os.getpid()}\n".encode())
            stream.flush()
            yield
            return


def _hold(stream: IO[bytes], wait: bool) -> bool:
    """Takes the lock; False if another process has it. Windows gives up waiting after a while."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # Beyond the text, which stays readable.
            stream.seek(1024)
            msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise
        return False
    return True


def _is_at(stream: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def made_once(
    place: Path, is_whole: Callable[[], bool], make: Callable[[Path], None], waiting: Callable[[], None] = lambda: None
) -> None:
    """Has a folder of the cache made, if it is not whole: under a temporary name, and then renamed.

    Of several processes one makes it, and the others wait. What stands in its place is removed when it is replaced.

    Args:
        is_whole: whether it needs no making.
        make: fills the new folder that it is given.
        waiting: called if another process is at work there.

    Raises:
        OutputError: if it cannot be written. Nothing half-made stays then, nor after whatever `make` raises.
    """
    if is_whole():
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with lock(place.parent / ".lock", lambda owner: waiting()):
            if is_whole():
                return
            # Under the lock, what is there of these is of processes that were killed.
            for left in place.parent.glob(f".{place.name}.*"):
                shutil.rmtree(left)
            with atomic_directory(place) as staging:
                make(staging)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {place}: {reason}; EDGEDIT_CACHE can name another cache folder") from error


class Digest(NamedTuple):
    """The digest of a content, and its size."""

    sha256: str
    """SHA-256 of all bytes, hexadecimal."""
    size: int
    """The number of bytes."""

    @classmethod
    def of(cls, data: Buffer) -> Self:
        """The digest of what is in memory."""
        return cls(hashlib.sha256(data).hexdigest(), memoryview(data).nbytes)

    @classmethod
    def read(cls, stream: BufferedReader) -> Self:
        """The digest of a file that is open, from where it is to its end."""
        start = stream.tell()
        return cls(hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell() - start)

    @classmethod
    def copy(cls, source: BinaryIO, target: Path) -> Self:
        """The digest of what was copied into a new file.

        Raises:
            FileExistsError: if there is a file of that name.
            OSError: if it cannot be read or written.
        """
        digest, size = hashlib.sha256(), 0
        with target.open("xb") as stream:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                size += stream.write(chunk)
        return cls(digest.hexdigest(), size)

    def line(self, name: str) -> bytes:
        """The content of a file that vouches for a file beside it, in the format of `sha256sum`."""
        return f"{self.sha256}  {name}\n".encode()
