"""The inputs and weights of an ONNX file, read from its protobuf encoding without the onnx package.

Field numbers are those of onnx.proto, encoding as in the Protocol Buffers documentation, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from serving.deploy.errors import StartError

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER, _GRAPH_INPUT = 5, 11
_TENSOR_EXTERNAL = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE = 1, 2, 1, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


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
        graphs = [body for number, body in _fields(raw) if number == _MODEL_GRAPH]
        inputs = {name: shape for graph in graphs for name, shape in _inputs(graph)}
        external = sorted({name for graph in graphs for name in _external(graph)})
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, IndexError, TypeError):
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
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("unknown wire type")
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


def _messages(data: memoryview | int, wanted: int) -> Iterator[memoryview]:
    """The bodies of the fields of one number, which are messages or strings."""
    if isinstance(data, int):
        raise ValueError("a number where a message was expected")
    for number, value in _fields(data):
        if number == wanted:
            if isinstance(value, int):
                raise ValueError("a number where a message was expected")
            yield value


def _text(data: memoryview, number: int) -> str:
    return "".join(str(bytes(value), "utf-8") for value in _messages(data, number))


def _inputs(graph: memoryview | int) -> Iterator[tuple[str, tuple[int | None, ...]]]:
    for value in _messages(graph, _GRAPH_INPUT):
        shape = [
            next((v for n, v in _fields(dim) if n == _DIM_VALUE and isinstance(v, int)), None)
            for kind in _messages(value, _VALUE_TYPE)
            for tensor in _messages(kind, _TYPE_TENSOR)
            for dims in _messages(tensor, _TENSOR_SHAPE)
            for dim in _messages(dims, _SHAPE_DIM)
        ]
        yield _text(value, _VALUE_NAME), tuple(shape)


def _external(graph: memoryview | int) -> Iterator[str]:
    for tensor in _messages(graph, _GRAPH_INITIALIZER):
        for entry in _messages(tensor, _TENSOR_EXTERNAL):
            if _text(entry, _ENTRY_KEY) == "location":
                yield _text(entry, _ENTRY_VALUE)
