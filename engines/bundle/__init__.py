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

from engines.bundle.contents import BundleContents
from engines.bundle.integrity import FileProblem
from engines.bundle.manifest import (
    CARD_FILE,
    EXTERNAL_LOCATION,
    SIGNATURE_FILES,
    WEIGHTS_FILE,
    FileEntry,
    GraphEntry,
    Manifest,
    ProducedBy,
    direction_file,
)
from engines.bundle.reader import Bundle
from engines.bundle.writer import BundleWriter
from engines.contracts import TensorSpec

__all__ = [
    "CARD_FILE",
    "EXTERNAL_LOCATION",
    "SIGNATURE_FILES",
    "WEIGHTS_FILE",
    "Bundle",
    "BundleContents",
    "BundleWriter",
    "FileEntry",
    "FileProblem",
    "GraphEntry",
    "Manifest",
    "ProducedBy",
    "TensorSpec",
    "direction_file",
]
