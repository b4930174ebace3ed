"""Files of arrays in the formats that directions are published in: torch, NumPy (.npy, .npz), pickle, and plain text.

Nothing that such a file brings is run: torch's are read with `weights_only`, NumPy's without objects, and a pickle as
data (see `training.importers.pickled`), from which only numeric arrays are made.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.errors import DirectionError
from engines.first_bytes import LENGTH
from engines.store import Digest
from training.importers.errors import CheckpointError
from training.importers.opening import WORDS, form_of, torch_content
from training.importers.pickled import Call, numpy_array, read_pickle

MAX_BYTES = 64 * 2**20
"""Largest file that is read, packed and unpacked."""

MAX_TEXT = 4 * 2**20
"""Bytes of a text of numbers; a direction of 18 x 512 takes some 200 thousand."""

MAX_ITEMS = 10_000
"""Arrays, numbers and containers in one file; one that stands in several places counts at each."""

_NUMPY = b"\x93NUMPY"
_BETWEEN = re.compile(r"[\s,;\[\]()]+")


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of a file, and its digest."""

    value: Any
    """An array; a dict of arrays by name; or lists of arrays and numbers."""
    sha256: str


def read_arrays(path: Path) -> ArrayFile:
    """Reads a file of arrays of at most 64 MiB; its content says which format it is.

    Raises:
        DirectionError: if it cannot be read, is too large or damaged, or holds objects other than arrays.
        CheckpointError: if it is of a kind that is not read, asks for anything but arrays, or is damaged.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DirectionError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise DirectionError(f"{path} is larger than {MAX_BYTES // 2**20} MiB; no direction is")
    return ArrayFile(_content(path, data), Digest.of(data).sha256)


def _content(path: Path, data: bytes) -> Any:
    form = form_of(path, data[:LENGTH], len(data))
    if form == "npy":
        return _from_npy(data, str(path))
    if form == "npz":
        return _from_npz(data, path)
    if form == "numbers":
        return _from_text(data, path)
    if form in ("zipped torch", "torch"):
        node = torch_content(path, form)
    elif form == "pickle":
        stream = io.BytesIO(data)
        node = read_pickle(stream, str(path))
        if stream.read(1):
            raise CheckpointError(f"{path} goes on after its end: damaged, or of another kind")
    else:
        raise DirectionError(f"{path} is {WORDS[form]}, and arrays come in torch, NumPy, pickle or text files")
    try:
        return _plain(node, path, [MAX_ITEMS])
    except RecursionError as error:
        raise CheckpointError(f"{path} nests lists more deeply than arrays do") from error


def _from_npy(data: bytes, source: str) -> np.ndarray:
    if data.startswith(_NUMPY):
        try:
            return np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, MemoryError, SyntaxError, OverflowError) as error:
            raise DirectionError(f"{source} is damaged, or holds objects that are not numbers") from error
    raise DirectionError(f"{source} is damaged: it does not begin as NumPy's arrays do")


def _from_npz(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """All arrays of NumPy's container, by name; together they unpack to no more than `MAX_BYTES`."""
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > MAX_ITEMS or sum(member.file_size for member in members) > MAX_BYTES:
                raise DirectionError(f"{path} unpacks to more than {MAX_BYTES // 2**20} MiB; no direction does")
            for member in members:
                if member.filename.endswith(".npy"):
                    name = member.filename.removesuffix(".npy")
                    arrays[name] = _from_npy(archive.read(member), f"{path}: {name[:80]}")
    # What zipfile raises for members that are cut or misplaced, packed by other methods, or encrypted.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise DirectionError(f"{path} is damaged, or packed in a way that NumPy does not; get it again") from error
    return arrays


def _from_text(data: bytes, path: Path) -> np.ndarray:
    """n x m of a table of as many numbers in every line, else all numbers in their order; after # come comments."""
    if len(data) > MAX_TEXT:
        raise DirectionError(f"{path} is a text of more than {MAX_TEXT // 2**20} MiB; no direction is")
    lines = data.decode("utf-8-sig", "replace").splitlines()
    words = [[word for word in _BETWEEN.split(line.partition("#")[0]) if word] for line in lines]
    try:
        rows = [[float(word) for word in line] for line in words if line]
    except ValueError as error:
        raise DirectionError(f"{path} is a text that does not hold numbers alone ({str(error)[:80]})") from error
    table = len({len(row) for row in rows}) == 1 and len(rows[0]) > 1 and len(rows) > 1
    return np.array(rows if table else [number for row in rows for number in row])


def _plain(node: Any, path: Path, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise CheckpointError(f"{path} holds more than {MAX_ITEMS} items")
    if isinstance(node, torch.Tensor):
        # A view may claim more elements than its storage has.
        if node.layout is not torch.strided or node.is_quantized or node.numel() * node.element_size() > MAX_BYTES:
            raise DirectionError(f"{path} holds a tensor that is too large, or not dense")
        return node.detach().to(torch.float32 if node.is_floating_point() else node.dtype).numpy()
    if isinstance(node, list | tuple):
        return [_plain(item, path, left) for item in node]
    if isinstance(node, dict):
        return {str(key): _plain(item, path, left) for key, item in node.items()}
    if isinstance(node, Call) and node.name.startswith("numpy."):
        return numpy_array(node, path)
    if node is None or isinstance(node, bool | int | float | str):
        return node
    raise CheckpointError(f"{path} holds something other than arrays and numbers: refused; nothing of it ran")
