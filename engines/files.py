"""Files on disk: opened without following links, listed, and written whole or not at all; where caches live."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from engines.errors import OutputError


def cache_folder() -> Path:
    """Where caches of this user live: EDGEDIT_CACHE, or the system's cache folder."""
    if own := os.environ.get("EDGEDIT_CACHE"):
        return Path(own)
    if local := os.environ.get("LOCALAPPDATA"):
        return Path(local) / "edgedit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgedit"


@contextmanager
def only_one(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Lets one process at a time work in a folder; `waiting` is called if another one is at it.

    The system itself drops the lock when its process dies, so that none is ever stale.
    """
    import fcntl

    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_once(
    place: Path, is_whole: Callable[[], bool], make: Callable[[Path], None], waiting: Callable[[], None] = lambda: None
) -> None:
    """Has a folder of the cache made, if it is not whole: under a temporary name, and then renamed.

    Of several processes one makes it, and the others wait. What stands in its place is removed when it is replaced.

    Args:
        place: the folder.
        is_whole: whether it needs no making.
        make: makes it under the path that it is given.
        waiting: called if another process is at work there.

    Raises:
        OutputError: if it cannot be written. Nothing half-made stays then, nor after whatever `make` raises.
    """
    if is_whole():
        return
    staging = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with only_one(place.parent, waiting):
            if is_whole():
                return
            # Under the lock, what is there of these is of processes that were killed.
            for left in place.parent.glob(f".{place.name}.*"):
                shutil.rmtree(left)
            make(staging)
            shutil.rmtree(place, ignore_errors=True)
            staging.rename(place)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {place}: {reason}; EDGEDIT_CACHE can name another cache folder") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


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


def write(path: str | Path, data: bytes) -> None:
    """Writes a file under a temporary name beside it and renames it into place.

    Raises:
        OutputError: if it cannot be written; what was at `path` is then unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
