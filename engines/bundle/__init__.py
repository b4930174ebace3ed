"""A bundle and what lies in it: manifests, files, engine folders, signatures."""

from __future__ import annotations

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
from engines.bundle.reader import Bundle, BundleWriter
from engines.contracts import TensorSpec

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
