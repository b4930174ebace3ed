"""The bundle: a directory with graphs, weights and directions, and a manifest that vouches for every byte of them.

    manifest.json                 schema, family, tensor contracts, provenance, and size and SHA-256 of every other file
    manifest.sha256               digest of manifest.json, in the format of `sha256sum`
    graphs/<name>.onnx            structure; initializers point into the weights by offset and length
    graphs/weights.safetensors    the weights, once
    directions/<name>.safetensors edit directions
    card.md                       model card
    engines/<name>/               engines built from the graphs, each folder with a manifest of its own (see
                                  engines.bundle.folders), so that a build changes nothing that is listed here
    model.sig                     signature over all of the above, if the bundle was signed (see engines.bundle.signing)

The weights lie beside the graphs because ONNX Runtime and onnx refuse external data outside a model's own directory;
so a plain `onnxruntime.InferenceSession("graphs/edit.onnx")` works too.

Nothing is parsed before its digest matches: `Bundle.read` returns the bytes that were hashed, not the file's name.
The manifest itself is covered by manifest.sha256. That finds damage, not malice, since whoever rewrites the one can
rewrite the other; the signature is what covers malice.
"""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from pydantic import JsonValue, TypeAdapter

from engines.bundle.completion import complete, lacks_generator
from engines.bundle.folders import ENGINES_FOLDER, HIDDEN_ENGINES, engine_problems
from engines.bundle.integrity import COPY_AGAIN, FileProblem, check_entry, read_entry, read_regular, walk
from engines.bundle.manifest import (
    CARD_FILE,
    EXTERNAL_LOCATION,
    MANIFEST_DIGEST_FILE,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    SCHEMA_VERSION,
    SIGNATURE_FILES,
    WEIGHTS_FILE,
    FileEntry,
    GraphEntry,
    Manifest,
    ProducedBy,
    RelativePath,
    direction_file,
    manifest_bytes,
    manifest_digest_line,
    parse_manifest,
)
from engines.contracts import OURS, TensorSpec, graph_contract
from engines.errors import BundleError, OutputError
from engines.family import ModelFamily
from engines.store import Digest, cannot_write, replace_directory, scratch_directory

if TYPE_CHECKING:
    from engines.directions import Direction

__all__ = [
    "CARD_FILE",
    "EXTERNAL_LOCATION",
    "SIGNATURE_FILES",
    "WEIGHTS_FILE",
    "Bundle",
    "BundleWriter",
    "FileEntry",
    "FileProblem",
    "GraphEntry",
    "Manifest",
    "ProducedBy",
    "TensorSpec",
    "direction_file",
]


class Bundle:
    """A bundle on disk whose manifest has been checked. Made by `Bundle.load`; safe to share between threads."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.family = manifest.model_family

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def method(self) -> str:
        """The key of the method that the graphs are of."""
        return self.manifest.method

    @property
    def inversion(self) -> list[TensorSpec]:
        """The tensors of an inversion, in order: what the graph `invert` gives.

        Raises:
            BundleError: if another method's bundle lacks that graph.
        """
        if self.method == OURS and "invert" not in self.manifest.graphs:
            return graph_contract(self.family, "invert")[1]
        return self.graph("invert").outputs

    @property
    def edits_styles(self) -> bool:
        """Whether an edit may also move styles: other methods' graphs take codes alone."""
        return self.method == OURS or any(spec.name == "style_delta" for spec in self.graph("edit").inputs)

    @classmethod
    def load(cls, path: str | Path, verify: bool = True, progress: Callable[[str], None] = lambda line: None) -> Self:
        """Opens a bundle; one without its generator is completed in the cache folder first.

        Args:
            path: its directory.
            verify: check every file now, else damage is found when a file is read; nothing is parsed unchecked.
            progress: called with one line if the bundle is to be completed.

        Raises:
            BundleError: if it is not a bundle, is of another schema, or any file is missing, damaged, unlisted or not
                a regular file inside the bundle.
            EdgeditError: as `engines.bundle.completion.complete`.
        """
        bundle = cls._open(path)
        if lacks_generator(bundle.path):
            bundle = cls._open(complete(bundle, progress))
        if verify and (problems := bundle.verify()):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise BundleError(f"{problems[0].refusal(bundle.name)}{more}")
        return bundle

    @classmethod
    def _open(cls, path: str | Path) -> Self:
        root = Path(path)
        if not root.is_dir():
            raise BundleError(f"{path} is not a bundle: there is no such directory")
        if not os.path.lexists(root / MANIFEST_FILE):
            raise BundleError(f"{path} is not a bundle: it has no {MANIFEST_FILE}; give the directory that holds it")
        raw = _sound(read_regular(root, MANIFEST_FILE, MAX_MANIFEST_BYTES), root.name)
        line = manifest_digest_line(raw)
        if _sound(read_regular(root, MANIFEST_DIGEST_FILE, len(line)), root.name) != line:
            raise BundleError(f"{root.name}: {MANIFEST_FILE} does not match {MANIFEST_DIGEST_FILE}; {COPY_AGAIN}")
        return cls(root.resolve(), parse_manifest(raw, root.name))

    def read(self, relative: str) -> bytes:
        """The content of a file that the manifest lists, read once and checked: these very bytes have its digest.

        Raises:
            BundleError: if the manifest does not list it, or it is missing or damaged.
        """
        entry = self.manifest.files.get(relative)
        if entry is None:
            raise BundleError(f"{self.name}: there is no {relative} in this bundle")
        return _sound(read_entry(self.path, relative, entry), self.name)

    def graph(self, name: str) -> GraphEntry:
        """The entry of a graph.

        Raises:
            BundleError: if the bundle has none of that name; the message lists those it has.
        """
        try:
            return self.manifest.graphs[name]
        except KeyError:
            there_are = ", ".join(sorted(self.manifest.graphs)) or "none"
            raise BundleError(f"{self.name}: there is no graph {name!r} in this bundle; it has {there_are}") from None

    def verify(self) -> list[FileProblem]:
        """Checks every file against the manifest, and those of each engine folder against its engine.json.

        Parses nothing but engine.json files whose digests match. An empty list means that all is well.
        """
        problems = [p for f, entry in sorted(self.manifest.files.items()) if (p := check_entry(self.path, f, entry))]
        listed = {*self.manifest.files, MANIFEST_FILE, MANIFEST_DIGEST_FILE, *SIGNATURE_FILES}
        in_engines: list[tuple[str, int]] = []
        try:
            for name, mode in walk(self.path, without=HIDDEN_ENGINES):
                if name in SIGNATURE_FILES and not stat.S_ISREG(mode):
                    problems.append(FileProblem(name, "irregular", "is not a regular file"))
                elif name.startswith(f"{ENGINES_FOLDER}/") and name not in listed:
                    in_engines.append((name, mode))
                elif name not in listed:
                    problems.append(FileProblem(name, "unlisted", "is not listed in the manifest", "remove it"))
        except OSError as error:
            folder = os.path.relpath(error.filename or self.path, self.path)
            problems.append(FileProblem(folder, "irregular", f"cannot be listed: {error.strerror or error}"))
        return problems + engine_problems(self.path, in_engines)


def _sound(read: bytes | FileProblem, bundle: str) -> bytes:
    if isinstance(read, FileProblem):
        raise BundleError(read.refusal(bundle))
    return read


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
        method: str = OURS,
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self.metrics = dict(metrics or {})
        self._fields: dict[str, Any] = {
            "name": name,
            "method": method,
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

    def add_direction(self, direction: Direction) -> None:
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
