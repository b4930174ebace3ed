"""The inputs and weights of an ONNX file, read from its protobuf encoding without the onnx package.

Field numbers are those of onnx.proto, encoding as in the Protocol Buffers documentation, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from serving.deploy.errors import StartError

_INPUT = (7, 11)
"""Fields from a model to its inputs: graph, input."""
_EXTERNAL = (7, 5, 13)
"""Fields from a model to the places of its weights: graph, initializer, external_data."""
_DIMENSION = (2, 1, 2, 1)
"""Fields from an input to its dimensions: type, tensor_type, shape, dim."""
_NAME = _DIM_VALUE = _KEY = 1
_VALUE = 2
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
"""Bytes of a value by the wire types of fixed size."""


@dataclass(frozen=True)
class OnnxFile:
    """A graph on disk."""

    path: Path
    inputs: dict[str, tuple[int | None, ...]]
    """Shapes by name; None for a dynamic extent."""
    external: tuple[str, ...]
    """Names of the files beside it that hold its weights, sorted."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The graph and its weights."""
        return (self.path, *(self.path.parent / name for name in self.external))


def read(path: Path) -> OnnxFile:
    """Reads the inputs of a graph and where its weights are.

    Raises:
        StartError: if it is no ONNX graph, or its weights are not files beside it.
    """
    try:
        raw = memoryview(path.read_bytes())
        inputs = {_text(one, _NAME): tuple(map(_extent, _at(one, *_DIMENSION))) for one in _at(raw, *_INPUT)}
        places = [entry for entry in _at(raw, *_EXTERNAL) if _text(entry, _KEY) == "location"]
        external = sorted({_text(entry, _VALUE) for entry in places})
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError):
        inputs, external = {}, []
    if not inputs:
        raise StartError(f"{path} is not an ONNX graph with inputs; write the model repository again")
    for name in external:
        if PurePosixPath(name).name != name or name in (".", "..") or not (path.parent / name).is_file():
            raise StartError(f"{path} wants its weights in {name!r}, which is no file beside it; copy both together")
    return OnnxFile(path, inputs, tuple(external))


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of every field of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        size, at = _varint(data, at) if kind == _BYTES else (_FIXED[kind], at)
        if at + size > len(data):
            raise ValueError("the message ends early")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without end")


def _at(data: memoryview | int, *path: int) -> Iterator[memoryview | int]:
    """The values at a path of field numbers below a message."""
    if not path:
        yield data
    elif isinstance(data, int):
        raise ValueError("a number where a message was expected")
    else:
        for number, value in _fields(data):
            if number == path[0]:
                yield from _at(value, *path[1:])


def _text(data: memoryview | int, number: int) -> str:
    return "".join(str(value, "utf-8") for value in _at(data, number))  # type: ignore[arg-type]


def _extent(dimension: memoryview | int) -> int | None:
    return next((value for value in _at(dimension, _DIM_VALUE) if isinstance(value, int)), None)
