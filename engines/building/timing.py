"""The timing cache: measured kernels of earlier builds, so that the next one measures less.

TensorRT alone has one: TensorRT-RTX chooses kernels without measuring, and its timing cache does nothing since 1.2.
The cache is a file of the user's own, in the cache folder of the system; what cannot be read is thrown away.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from engines.errors import OutputError
from engines.runtimes.backend import Backend
from engines.store import cache_folder, write

MAX_BYTES = 64 * 2**20
"""A larger cache is thrown away rather than kept."""
MAX_FILES = 8
"""Caches of that many versions and GPUs are kept, the latest used."""


class TimingCache:
    """The cache of one library version and architecture."""

    def __init__(self, backend: Backend, architecture: str, folder: Path | None = None) -> None:
        self.backend = backend
        self.folder = folder or cache_folder()
        self.file = self.folder / f"timing-{backend.runtime}-{backend.version}-{architecture}.cache"

    def attach(self, config: Any) -> bool:
        """Gives a builder configuration what is known; True if that came from the file."""
        known = self._read()
        with _quiet():
            cache = config.create_timing_cache(known)
            if cache is None and known:
                known, cache = b"", config.create_timing_cache(b"")
            return bool(cache is not None and config.set_timing_cache(cache, False) and known)

    def keep(self, config: Any) -> None:
        """Writes what a build has learnt, and drops the oldest files beyond `MAX_FILES`. A cache that cannot be written
        is no reason to lose an engine."""
        with _quiet():
            cache = config.get_timing_cache()
            data = bytes(cache.serialize()) if cache is not None else b""
        if not data or len(data) > MAX_BYTES:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(self.file, data)
            files = sorted(self.folder.glob("timing-*.cache"), key=lambda f: f.stat().st_mtime)
            for old in files[:-MAX_FILES]:
                old.unlink(missing_ok=True)
        except (OSError, OutputError):
            return

    def _read(self) -> bytes:
        try:
            if self.file.stat().st_size > MAX_BYTES:
                self.file.unlink()
            return self.file.read_bytes()
        except OSError:
            return b""


def _quiet() -> warnings.catch_warnings[None]:
    """TensorRT-RTX calls these functions deprecated."""
    return warnings.catch_warnings(action="ignore", category=DeprecationWarning)
