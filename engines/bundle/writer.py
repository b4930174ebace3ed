"""Writing a bundle: beside its destination, and there once all of it is written."""

from __future__ import annotations

import io
import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from pydantic import JsonValue, TypeAdapter

from engines.bundle.manifest import (
    MANIFEST_DIGEST_FILE,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    FileEntry,
    GraphEntry,
    Manifest,
    ProducedBy,
    RelativePath,
    direction_file,
    manifest_bytes,
    manifest_digest_line,
)
from engines.contracts import DEFAULT_METHOD, TensorSpec, graph_contract
from engines.errors import OutputError
from engines.family import ModelFamily
from engines.store import Digest, cannot_write, replace_directory, scratch_directory


class NamedFile(Protocol):
    """A file that goes into a bundle under a name of its own: an edit direction."""

    @property
    def name(self) -> str: ...

    def to_bytes(self) -> bytes: ...


class BundleWriter:
    """Builds a bundle beside its destination and renames it into place when all of it is there.

    A bundle already at `path` is replaced on success only; after an exception nothing new is left on disk. Use as a
    context manager. `metrics` may be filled until the block ends.

        with BundleWriter(path, name="demo", family=DEMO_64, precision="fp16", licence="...", produced_by=...) as w:
            w.add_file(WEIGHTS_FILE, weights)
            w.add_graph("edit", model.SerializeToString())
            w.metrics["edit_max_error"] = 0.003

    Raises:
        OutputError: if `path` holds something that is not a bundle, or cannot be written.
        ValueError: for a file added twice, a bad relative path or a manifest that would not be valid.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str,
        family: ModelFamily,
        precision: str,
        licence: str,
        produced_by: ProducedBy,
        metrics: dict[str, JsonValue] | None = None,
        method: str = DEFAULT_METHOD,
        refinements: int | None = None,
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self.metrics = dict(metrics or {})
        self._fields: dict[str, Any] = {
            "name": name,
            "method": method,
            "refinements": refinements,
            "family": json.loads(json.dumps(family.to_dict())),
            "precision": precision,
            "licence": licence,
            "produced_by": produced_by,
        }
        self._family = family
        self._files: dict[str, FileEntry] = {}
        self._graphs: dict[str, GraphEntry] = {}
        self._directions: list[str] = []
        self._root: Path | None = None
        self._scratch = ExitStack()

    def __enter__(self) -> Self:
        if os.path.lexists(self.path) and not (self.path / MANIFEST_FILE).is_file():
            raise OutputError(f"{self.path} is there and is not a bundle; give another place, or move it away")
        try:
            self._root = self._scratch.enter_context(scratch_directory(self.path))
        except OSError as error:
            raise cannot_write(self.path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        root = self._staging()
        try:
            if kind is None:
                self._finish(root)
                replace_directory(root, self.path)
        except OSError as failure:
            raise cannot_write(self.path, failure) from failure
        finally:
            self._scratch.close()
            self._root = None

    def add_bytes(self, relative: str, data: bytes) -> None:
        """Adds a file from memory; `relative` is its path inside the bundle."""
        self._add(relative, io.BytesIO(data))

    def add_file(self, relative: str, source: str | Path) -> None:
        """Adds a copy of a file on disk, hashed while it is copied."""
        try:
            stream = open(source, "rb")
        except OSError as error:
            raise OutputError(f"cannot read {source}: {error.strerror or error}") from error
        with stream:
            self._add(relative, stream)

    def add_graph(
        self,
        name: str,
        model: bytes,
        inputs: list[TensorSpec] | None = None,
        outputs: list[TensorSpec] | None = None,
    ) -> None:
        """Adds a serialized ONNX model as graphs/<name>.onnx; its tensors default to those of `graph_contract`."""
        if inputs is None or outputs is None:
            inputs, outputs = graph_contract(self._family, name)
        file = f"graphs/{name}.onnx"
        self.add_bytes(file, model)
        self._graphs[name] = GraphEntry(file=file, inputs=inputs, outputs=outputs)

    def add_direction(self, direction: NamedFile) -> None:
        """Adds an edit direction under its own name."""
        self.add_bytes(direction_file(direction.name), direction.to_bytes())
        self._directions.append(direction.name)

    def _staging(self) -> Path:
        if self._root is None:
            raise RuntimeError("a BundleWriter is used inside its with block only")
        return self._root

    def _add(self, relative: str, source: BinaryIO) -> None:
        root = self._staging()
        relative = TypeAdapter(RelativePath).validate_python(relative)
        if relative in self._files:
            raise ValueError(f"{relative} is in the bundle already")
        target = root / relative
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = Digest.copy(source, target)
        except OSError as error:
            raise cannot_write(f"{relative} of {self.path}", error) from error
        self._files[relative] = FileEntry.of(digest)

    def _finish(self, root: Path) -> None:
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            graphs=self._graphs,
            files=self._files,
            metrics=self.metrics,
            directions=self._directions,
            **self._fields,
        )
        raw = manifest_bytes(manifest)
        (root / MANIFEST_FILE).write_bytes(raw)
        (root / MANIFEST_DIGEST_FILE).write_bytes(manifest_digest_line(raw))
