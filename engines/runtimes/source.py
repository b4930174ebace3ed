"""The place that an ONNX graph and its weights are read from, each byte against the digest that vouches for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engines.bundle import Bundle, GraphEntry
from engines.bundle.engine_manifest import ENGINES_FOLDER, EngineGraph
from engines.bundle.preflight import HostInfo
from engines.bundle.signing import ensure_signed, open_engine
from engines.contracts import TensorSpec, mismatch
from engines.errors import BundleError, EngineError

_EXTERNAL = (".safetensors", ".weights")
"""Suffixes of the files that hold a graph's external data."""


@dataclass(frozen=True)
class Source:
    """A graph in a bundle, or a typed one in an engine folder, and what it should be."""

    name: str
    """The name in messages: "demo: graphs/edit.onnx"."""
    file: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    files: Iterable[str]
    read: Callable[[str], bytes]
    error: type[BundleError] | type[EngineError]

    def check(self, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> None:
        """Holds what a runtime has loaded against what the manifest promises.

        Raises:
            BundleError, EngineError: if a tensor differs.
        """
        for what, listed, actual in (("input", self.inputs, inputs), ("output", self.outputs, outputs)):
            if difference := mismatch(listed, actual):
                raise self.error(f"{self.name} is not what the manifest says: {what} {difference}")

    def weights(self, model: bytes) -> dict[str, bytes]:
        """Files beside the graph that it names. A name is stored in it as plain text, so no parser is needed."""
        folder = PurePosixPath(self.file).parent
        contents = {}
        for listed in self.files:
            path = PurePosixPath(listed)
            if path.parent == folder and path.suffix in _EXTERNAL and path.name.encode() in model:
                contents[path.name] = self.read(listed)
        return contents


def open_source(
    bundle: Bundle,
    graph: str,
    runtime: str,
    host: HostInfo,
    *,
    precision: str | None,
    target: str | None = None,
    public_key: str | Path | None,
) -> Source:
    """A typed graph of an engine folder if a precision or target is asked for, else the bundle's own graph.

    Raises:
        BundleError: if there is none of that name.
        EngineError, SignatureError: as `engines.bundle.signing.open_engine`.
    """
    entry: GraphEntry | EngineGraph
    if precision is None and target is None:
        if public_key is not None:
            ensure_signed(bundle, public_key)
        entry, place, files, read, error = bundle.graph(graph), "", bundle.manifest.files, bundle.read, BundleError
    else:
        folder = open_engine(bundle, runtime, graph, host, precision=precision, target=target, public_key=public_key)
        entry, place, error = folder.graph(graph), f"{ENGINES_FOLDER}/{folder.name}/", EngineError
        files, read = folder.manifest.files, folder.read
    return Source(f"{bundle.name}: {place}{entry.file}", entry.file, entry.inputs, entry.outputs, files, read, error)
