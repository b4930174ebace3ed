"""Small safetensors files with one JSON document of metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save


def dump(tensors: Mapping[str, np.ndarray], kind: str, metadata: Mapping[str, Any]) -> bytes:
    """A safetensors file in memory; `metadata` is stored as JSON under the key `kind`."""
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return save(contiguous, metadata={kind: json.dumps(metadata, allow_nan=False)})


def parse(data: bytes, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and metadata of a file that `dump` made.

    Raises:
        ValueError: if it is not such a file; the message says why and names no file.
    """
    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][kind])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a safetensors file with {kind} metadata") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"its {kind} metadata is not a JSON object")
    return tensors, metadata
