"""The engine folder while it is built: one build at a time, staged beside its place, published by one rename.

    <bundle>/engines/.lock                  held by the build that is running
    <bundle>/engines/.<name>.<random>       what it has written so far
    <bundle>/engines/.<name>.<random>.old   the folder it replaces, between two renames
    <bundle>/engines/<name>                 whole, or not there

A build that was killed leaves hidden names only, which nothing lists as engines; the next build sweeps them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from engines.engine_manifest import (
    ENGINE_DIGEST_FILE,
    ENGINE_FILE,
    ENGINES_FOLDER,
    EngineManifest,
    engine_digest_line,
    engine_manifest_bytes,
)
from engines.errors import EngineError, OutputError
from engines.manifest import FileEntry

if TYPE_CHECKING:
    from typing_extensions import Buffer

LOCK_FILE = ".lock"
_CHUNK = 2**22


class Staging:
    """The folder that a build writes into. Made by `staged`."""

    def __init__(self, place: Path, root: Path) -> None:
        self.place = place
        self.root = root
        self.files: dict[str, FileEntry] = {}
        self.work = root / ".work"
        """For files that are not published."""

    def add(self, name: str, data: Buffer) -> None:
        """Writes a file of the engine folder, hashed as it goes.

        Raises:
            OSError: if it cannot be written.
        """
        digest = hashlib.sha256()
        view = memoryview(data).cast("B")
        with (self.root / name).open("xb", buffering=0) as stream:
            for start in range(0, len(view), _CHUNK):
                chunk = view[start : start + _CHUNK]
                digest.update(chunk)
                _write_all(stream, chunk)
        self.files[name] = FileEntry(sha256=digest.hexdigest(), bytes=len(view))

    def adopt(self, file: Path) -> None:
        """Takes a file of `work` into the folder, under its own name."""
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = file.stat().st_size
        file.rename(self.root / file.name)
        self.files[file.name] = FileEntry(sha256=digest, bytes=size)

    def publish(self, manifest: EngineManifest) -> None:
        """Writes the manifest and renames the folder into place; a folder that is there steps aside, and back if that
        fails.

        Raises:
            OSError: if it cannot be written or renamed; what was there is then unchanged.
        """
        shutil.rmtree(self.work)
        raw = engine_manifest_bytes(manifest)
        (self.root / ENGINE_FILE).write_bytes(raw)
        (self.root / ENGINE_DIGEST_FILE).write_bytes(engine_digest_line(raw))
        aside = self.root.with_name(f"{self.root.name}.old")
        replaced = os.path.lexists(self.place)
        if replaced:
            self.place.rename(aside)
        try:
            self.root.rename(self.place)
        except BaseException:
            if replaced:
                aside.rename(self.place)
            raise
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def staged(bundle: Path, name: str) -> Iterator[Staging]:
    """A folder to build `engines/<name>` of a bundle in; nothing of it is left unless it was published.

    Raises:
        EngineError: if another build is writing into the bundle, or its `engines` is not a directory.
        OutputError: if the folder cannot be written; free space is the usual want.
    """
    engines = bundle / ENGINES_FOLDER
    if engines.is_symlink() or (engines.exists() and not engines.is_dir()):
        raise EngineError(f"{bundle.name}: {ENGINES_FOLDER} is not a directory of the bundle; move it away")
    try:
        engines.mkdir(exist_ok=True)
        with _Lock(engines / LOCK_FILE, bundle.name):
            _sweep(engines)
            staging = Staging(engines / name, engines / f".{name}.{secrets.token_hex(4)}")
            try:
                staging.root.mkdir()
                staging.work.mkdir()
                yield staging
            finally:
                shutil.rmtree(staging.root, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {ENGINES_FOLDER}/{name} of {bundle.name}: {error.strerror or error}"
        ) from error
    finally:
        # A bundle without engines is left as it was.
        if engines.is_dir() and not engines.is_symlink() and not any(engines.iterdir()):
            engines.rmdir()


def _sweep(engines: Path) -> None:
    """Removes what killed builds left; a folder that had stepped aside for one goes back."""
    for path in sorted(engines.iterdir(), key=lambda p: p.suffix != ".old"):
        if not path.name.startswith(".") or path.name == LOCK_FILE:
            continue
        name = path.name[1:].removesuffix(".old").rpartition(".")[0]
        if path.suffix == ".old" and name and not os.path.lexists(engines / name):
            path.rename(engines / name)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write_all(stream: IO[bytes], data: memoryview) -> None:
    """An unbuffered write may take a part only, which is how a full disk begins."""
    while data:
        data = data[stream.write(data) :]


class _Lock:
    """A lock that the system itself drops when its process dies, so that none is ever stale."""

    def __init__(self, path: Path, bundle: str) -> None:
        self.path = path
        self.bundle = bundle
        self.stream: IO[bytes] | None = None

    def __enter__(self) -> Self:
        while True:
            stream = self.path.open("a+b")
            try:
                _lock(stream)
            except OSError:
                stream.seek(0)
                owner = stream.read(32).decode("ascii", "replace").strip()
                stream.close()
                who = f" (process {owner})" if owner.isdigit() else ""
                raise EngineError(
                    f"another build{who} is writing engines into {self.bundle}; wait for it, or stop it"
                ) from None
            if _same(stream, self.path):
                break
            # The last holder removed the file between our opening and locking it.
            stream.close()
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n".encode())
        stream.flush()
        self.stream = stream
        return self

    def __exit__(self, *_: object) -> None:
        assert self.stream is not None
        if sys.platform == "win32":
            # An open file cannot be removed there, and a closed one may be another's already.
            self.stream.close()
            return
        self.path.unlink(missing_ok=True)
        self.stream.close()


def _same(stream: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(stream: IO[bytes]) -> None:
    """Raises OSError if another process holds it."""
    if sys.platform == "win32":
        import msvcrt

        # Beyond the text, which stays readable.
        stream.seek(1024)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
