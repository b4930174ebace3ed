"""Engines, built once per {graph, TensorRT, architecture, batch, memory budget} and kept.

    <cache>/<model>-<graph>-trt<version>-<sm>-b<min>.<opt>.<max>.plan    the engine
    <cache>/<the same>.json                                              what it is of, and its digest; written last
    <cache>/<the same>.lock                                              held by who builds it

An engine is native code: only what this program wrote belongs in the cache, and no one else may write there. What is
taken from it is copied, and the copy has the digest of the record.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.store import Digest, atomic_file, lock
from serving.deploy.builders import Batch, Builder
from serving.deploy.errors import StartError
from serving.deploy.onnx_file import OnnxFile

_DIGITS = 16
Say = Callable[[str], None]


class _DamagedEngine(Exception):
    """An engine is not what its record says."""


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on."""

    model: str
    graph_sha256: str
    """The digest of the graph and its weights, see `graph_digest`."""
    tensorrt: str
    sm: str
    batch: Batch
    memory_budget: int | None = None
    """Bytes that it was built within; None: without a bound."""

    @property
    def stem(self) -> str:
        """The name of the cache's files."""
        batch = ".".join(map(str, self.batch))
        within = "" if self.memory_budget is None else f"-m{self.memory_budget}"
        return f"{self.model}-{self.graph_sha256[:_DIGITS]}-trt{self.tensorrt}-{self.sm}-b{batch}{within}"


def graph_digest(graph: OnnxFile) -> str:
    """SHA-256 over the names, sizes and contents of a graph and its weights; a StartError if one cannot be read."""
    digest = hashlib.sha256()
    for path in graph.files:
        try:
            digest.update(f"{path.name}\n{path.stat().st_size}\n".encode())
            with path.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)
        except OSError as error:
            raise StartError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


class EngineCache:
    """A directory of engines that several starters may share."""

    def __init__(self, root: Path, say: Say = print) -> None:
        self.root = root
        self.say = say
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(root, error) from error

    def provide(self, key: EngineKey, graph: OnnxFile, builder: Builder, place: Path) -> bool:
        """Puts the engine of a graph at `place`, built first if the cache has none that is whole.

        Returns:
            Whether it was built now.

        Raises:
            StartError: if it cannot be built or written.
        """
        try:
            if self.fetch(key, place):
                return False
            waiting = f"{key.model}: another starter builds it; waiting"
            with lock(self.root / f"{key.stem}.lock", lambda owner: self.say(waiting)):
                if self.fetch(key, place):
                    return False
                self._build(key, graph, builder)
                if not self.fetch(key, place):
                    raise StartError(
                        f"the plan of {key.model} changed while it was copied; who else writes {self.root}?"
                    )
            return True
        except OSError as error:
            raise _unwritable(Path(error.filename or self.root), error) from error

    def fetch(self, key: EngineKey, place: Path) -> bool:
        """Copies an engine to `place`; False, and nothing there, if there is none or it is not what its record says."""
        record = self._record(key)
        if record is None:
            return False
        try:
            with (self.root / f"{key.stem}.plan").open("rb") as source, atomic_file(place) as temporary:
                if Digest.copy(source, temporary).sha256 != record["sha256"]:
                    raise _DamagedEngine
        except FileNotFoundError:
            return False
        except _DamagedEngine:
            self.say(f"{key.model}: the plan in the cache is damaged and is built again")
            return False
        with suppress(FileNotFoundError):
            # Its age is what `prune` goes by.
            os.utime(self.root / f"{key.stem}.json")
        return True

    def prune(self, days: float) -> list[str]:
        """Removes engines that no start has taken for so many days, and what killed builders left.

        Returns:
            The names removed.
        """
        limit = time.time() - days * 86400
        removed = []
        try:
            for record in sorted(self.root.glob("*.json")):
                if record.stat().st_mtime < limit:
                    # The record first: an engine without one is none.
                    for path in (record, record.with_suffix(".plan"), record.with_suffix(".lock")):
                        path.unlink(missing_ok=True)
                    removed.append(record.stem)
            for left in self.root.glob(".*"):
                if left.stat().st_mtime < limit:
                    left.unlink(missing_ok=True)
        except OSError as error:
            # Another starter may prune the same files.
            self.say(f"{self.root} is not cleared of old plans: {error.strerror or error}")
        return removed

    def _record(self, key: EngineKey) -> dict[str, Any] | None:
        try:
            record = json.loads((self.root / f"{key.stem}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        wanted = json.loads(json.dumps(asdict(key)))
        same = isinstance(record, dict) and all(record.get(name) == value for name, value in wanted.items())
        return record if same and isinstance(record.get("sha256"), str) else None

    def _build(self, key: EngineKey, graph: OnnxFile, builder: Builder) -> None:
        self.say(f"{key.model}: building for {key.sm} with {builder.title}")
        started = time.monotonic()
        with atomic_file(self.root / f"{key.stem}.plan") as temporary:
            builder.build(graph, temporary, key.batch, key.sm)
            with temporary.open("rb") as stream:
                digest = Digest.read(stream)
                os.fsync(stream.fileno())
            seconds = time.monotonic() - started
        record = {**asdict(key), "sha256": digest.sha256, "bytes": digest.size, "seconds": round(seconds, 1)}
        with atomic_file(self.root / f"{key.stem}.json") as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        self.say(f"{key.model}: built, {digest.size / 1e6:.1f} MB in {seconds:.0f} s")


def _unwritable(path: Path, error: OSError) -> StartError:
    return StartError(
        f"{path} cannot be written: {error.strerror or error}; "
        f"give uid {os.getuid()} a volume there with room for the plans"
    )
