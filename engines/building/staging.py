"""The engine folder while it is built: one build at a time, staged beside its place, published by one rename.

    <bundle>/engines/.lock                  held by the build that is running
    <bundle>/engines/.<name>.<random>       what it has written so far
    <bundle>/engines/.<name>.<random>.old   the folder it replaces, between two renames
    <bundle>/engines/<name>                 whole, or not there

A build that was killed leaves hidden names only, which nothing lists as engines; the next build sweeps them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engines.bundle.engine_manifest import (
    ENGINE_DIGEST_FILE,
    ENGINE_FILE,
    ENGINES_FOLDER,
    EngineManifest,
    engine_digest_line,
    engine_manifest_bytes,
)
from engines.bundle.manifest import FileEntry
from engines.errors import EngineError
from engines.store import Digest, cannot_write, lock, replace_directory, scratch_directory

if TYPE_CHECKING:
    from typing_extensions import Buffer

LOCK_FILE = ".lock"


class Staging:
    """The folder that a build writes into. Made by `staged`."""

    def __init__(self, place: Path, root: Path) -> None:
        self.place = place
        self.root = root
        self.files: dict[str, FileEntry] = {}
        self.work = root / ".work"
        """The place of files that are not published."""

    def add(self, name: str, data: Buffer) -> None:
        """Writes a file of the engine folder, and its digest into `files`.

        Raises:
            OSError: if it cannot be written.
        """
        with (self.root / name).open("xb") as stream:
            stream.write(data)
        self.files[name] = FileEntry.of(Digest.of(data))

    def adopt(self, file: Path) -> None:
        """Takes a file of `work` into the folder, under its own name."""
        with file.open("rb") as stream:
            digest = Digest.read(stream)
        file.rename(self.root / file.name)
        self.files[file.name] = FileEntry.of(digest)

    def publish(self, manifest: EngineManifest) -> None:
        """Writes the manifest and renames the folder into place.

        Raises:
            OSError: if it cannot be written or renamed; what was there is then unchanged.
        """
        shutil.rmtree(self.work)
        raw = engine_manifest_bytes(manifest)
        (self.root / ENGINE_FILE).write_bytes(raw)
        (self.root / ENGINE_DIGEST_FILE).write_bytes(engine_digest_line(raw))
        replace_directory(self.root, self.place)


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
        with _only_build(engines / LOCK_FILE, bundle.name):
            _sweep(engines)
            with scratch_directory(engines / name) as root:
                staging = Staging(engines / name, root)
                staging.work.mkdir()
                yield staging
    except OSError as error:
        raise cannot_write(f"{ENGINES_FOLDER}/{name} of {bundle.name}", error) from error
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


@contextmanager
def _only_build(file: Path, bundle: str) -> Iterator[None]:
    def refuse(owner: str) -> None:
        who = f" (process {owner})" if owner else ""
        raise EngineError(f"another build{who} is writing engines into {bundle}; wait for it, or stop it")

    with lock(file, refuse):
        try:
            yield
        finally:
            # Windows removes no file that is open.
            if sys.platform != "win32":
                file.unlink(missing_ok=True)
