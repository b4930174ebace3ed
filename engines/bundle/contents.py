"""The contents of a bundle without its engines: the manifest and the files that it lists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from engines.bundle.integrity import FileProblem, read_entry, read_regular, refusing
from engines.bundle.manifest import (
    MANIFEST_DIGEST_FILE,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    GraphEntry,
    Manifest,
    manifest_digest_line,
    parse_manifest,
)
from engines.contracts import TensorSpec, graph_contract
from engines.errors import BundleError
from engines.store import Digest


class BundleContents:
    """A bundle's directory whose manifest has been checked; nothing else of it has been. Made by `open`."""

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

    def digest(self) -> str:
        """SHA-256 of the manifest on disk, which holds the digests of all else.

        Raises:
            BundleError: if it can no longer be read.
        """
        with refusing(self.name, BundleError):
            return Digest.of(read_regular(self.path, MANIFEST_FILE, MAX_MANIFEST_BYTES)).sha256

    @property
    def inversion(self) -> list[TensorSpec]:
        """The tensors of an inversion, in order: what the graph `invert` gives, or what separate graphs compose.

        Raises:
            BundleError: if that graph is missing, and a pipeline reads an inversion that others do not compose.
        """
        graphs = self.manifest.graphs
        composed = graph_contract(self.family, "invert")[1]
        known = {spec.name for spec in graph_contract(self.family, "edit")[0]}
        read = {spec.name for name in ("edit", "reconstruct") if name in graphs for spec in graphs[name].inputs}
        if "invert" in graphs or not read <= known:
            return self.graph("invert").outputs
        return composed

    @property
    def edits_styles(self) -> bool:
        """True if an edit may also move styles: the graphs of most methods take codes alone."""
        return any(spec.name == "style_delta" for entry in self.manifest.graphs.values() for spec in entry.inputs)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Reads the manifest in a bundle's directory.

        Raises:
            BundleError: if it is not a bundle or of another schema, or its manifest is missing or damaged.
        """
        root = Path(path)
        if not root.is_dir():
            raise BundleError(f"{path} is not a bundle: there is no such directory")
        if not os.path.lexists(root / MANIFEST_FILE):
            raise BundleError(f"{path} is not a bundle: it has no {MANIFEST_FILE}; give the directory that holds it")
        with refusing(root.name, BundleError):
            raw = read_regular(root, MANIFEST_FILE, MAX_MANIFEST_BYTES)
            line = manifest_digest_line(raw)
            if read_regular(root, MANIFEST_DIGEST_FILE, len(line)) != line:
                raise FileProblem(MANIFEST_FILE, "digest", f"does not match {MANIFEST_DIGEST_FILE}")
        return cls(root.resolve(), parse_manifest(raw, root.name))

    def read(self, relative: str) -> bytes:
        """The content of a file that the manifest lists, read once and checked: these very bytes have its digest.

        Raises:
            BundleError: if the manifest does not list it, or it is missing or damaged.
        """
        entry = self.manifest.files.get(relative)
        if entry is None:
            raise BundleError(f"{self.name}: there is no {relative} in this bundle")
        with refusing(self.name, BundleError):
            return read_entry(self.path, relative, entry)

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
