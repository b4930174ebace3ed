"""The place that an ONNX graph and its weights are read from, each byte against the digest that vouches for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engines.bundle import Bundle
from engines.bundle.folders import EngineFolder
from engines.bundle.signing import ensure_signed
from engines.contracts import TensorSpec
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

    def weights(self, model: bytes) -> dict[str, bytes]:
        """Files beside the graph that it names. A name is stored in it as plain text, so no parser is needed."""
        folder = PurePosixPath(self.file).parent
        contents = {}
        for listed in self.files:
            path = PurePosixPath(listed)
            if path.parent == folder and path.suffix in _EXTERNAL and path.name.encode() in model:
                contents[path.name] = self.read(listed)
        return contents


def of_bundle(bundle: Bundle, graph: str, public_key: str | Path | None) -> Source:
    """A bundle's own graph.

    Raises:
        BundleError: if there is none of that name.
        SignatureError: if a signature is required and does not hold.
    """
    if public_key is not None:
        ensure_signed(bundle, public_key)
    entry = bundle.graph(graph)
    return Source(
        f"{bundle.name}: {entry.file}",
        entry.file,
        entry.inputs,
        entry.outputs,
        bundle.manifest.files,
        bundle.read,
        BundleError,
    )


def of_engine(bundle: Bundle, folder: EngineFolder, graph: str) -> Source:
    """A typed graph of an engine folder that was opened for this machine, see `engines.bundle.signing.open_engine`."""
    entry = folder.graph(graph)
    return Source(
        f"{bundle.name}: engines/{folder.name}/{entry.file}",
        entry.file,
        entry.inputs,
        entry.outputs,
        folder.manifest.files,
        folder.read,
        EngineError,
    )
