"""Files of arrays in the formats that directions are published in: torch (.pt), NumPy (.npy) and pickle.

Nothing that such a file brings is run: torch's are read with `weights_only`, NumPy's without objects, and a pickle as
data (see `training.importers.pickled`), from which only numeric arrays are made.
"""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.errors import DirectionError
from training.importers.errors import CheckpointError
from training.importers.opening import TORCH_STARTS, torch_content
from training.importers.pickled import Call, read_pickle

MAX_BYTES = 64 * 2**20
"""Of a file, and of what it unpacks to."""

MAX_ITEMS = 10_000
"""Arrays, numbers and containers in one pickle; one that stands in several places counts at each."""

_NUMPY = b"\x93NUMPY"
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_NUMBERS = {f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}


@dataclass(frozen=True)
class ArrayFile:
    """What a file holds."""

    value: Any
    """An array; a dict of arrays by name; or, of a pickle, lists and tuples of arrays and numbers."""
    sha256: str


def read_arrays(path: Path) -> ArrayFile:
    """Reads a file of arrays of at most 64 MiB; its content says which format it is.

    Raises:
        DirectionError: if it cannot be read, is too large or damaged, or holds objects other than arrays.
        CheckpointError: if a pickle asks for anything else, or is damaged.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DirectionError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise DirectionError(f"{path} is larger than {MAX_BYTES // 2**20} MiB; no direction is")
    return ArrayFile(_content(path, data), hashlib.sha256(data).hexdigest())


def _content(path: Path, data: bytes) -> Any:
    if data.startswith(_NUMPY):
        try:
            return np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, MemoryError, SyntaxError) as error:
            raise DirectionError(f"{path} is damaged, or holds objects that are not numbers") from error
    if data.startswith(TORCH_STARTS):
        return _from_torch(torch_content(path, data[:16], len(data)), path)
    if not data.startswith(b"\x80"):
        raise DirectionError(f"{path} is neither a torch, a NumPy nor a pickle file")
    stream = io.BytesIO(data)
    node = read_pickle(stream, str(path))
    if stream.read(1):
        raise CheckpointError(f"{path} goes on after its end: damaged, or of another kind")
    try:
        return _from_pickle(node, path, [MAX_ITEMS])
    except RecursionError as error:
        raise CheckpointError(f"{path} nests lists more deeply than arrays do") from error


def _from_torch(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        return {str(key): _from_torch(item, path) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, torch.Tensor):
        raise DirectionError(f"{path} holds a {type(value).__name__} where a tensor was expected")
    # A view may claim more elements than its storage has.
    if value.layout is not torch.strided or value.is_quantized or value.numel() * value.element_size() > MAX_BYTES:
        raise DirectionError(f"{path} holds a tensor that is too large, or not dense")
    return value.detach().to(torch.float32 if value.is_floating_point() else value.dtype).numpy()


def _from_pickle(node: Any, path: Path, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise CheckpointError(f"{path} holds more than {MAX_ITEMS} items")
    if isinstance(node, list | tuple):
        return [_from_pickle(item, path, left) for item in node]
    if isinstance(node, dict):
        return {str(key): _from_pickle(item, path, left) for key, item in node.items()}
    if isinstance(node, Call) and node.name in _ARRAYS:
        try:
            return _array(node)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{path} holds an array that is damaged, or not of numbers") from error
    if node is None or isinstance(node, bool | int | float | str):
        return node
    raise CheckpointError(f"{path} holds something other than arrays and numbers: refused; nothing of it ran")


def _array(node: Call) -> np.ndarray:
    """From the state that NumPy pickles: version, shape, dtype, column-major, bytes; a dtype's has the byte order."""
    _, shape, kind, column_major, raw = node.state
    if isinstance(raw, Call) and raw.name == "_codecs.encode":  # bytes in protocol 2
        raw = raw.args[0].encode("latin1")
    code, order = kind.args[0], kind.state[1]
    if kind.name != "numpy.dtype" or code not in _NUMBERS or order not in ("<", ">", "|"):
        raise ValueError("not numbers")
    dtype = np.dtype(order + code)
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError("more or fewer bytes than its shape")
    array = np.frombuffer(raw, dtype).reshape(shape, order="F" if column_major else "C")
    return array.astype(dtype.newbyteorder("="))
