"""Pickles read as data: a machine for their instructions that looks nothing up and calls nothing.

A pickle is a program for a stack machine whose instructions name functions and call them. Here a name stays a `Name`
and a call becomes a `Call`, a record of what was to be called with what. Only the few names that saved tensors and
modules need are let through; any other is refused where it is named, before anything is done with it. The instruction
set is Python's (`pickletools`), protocols 2 to 5.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path
from typing import IO, Any

import numpy as np

from engines.errors import first_line
from training.importers.errors import CheckpointError

INSTRUCTIONS = 5_000_000
"""The most instructions of a network's pickle: one of 1024 pixels with its discriminator has some 50 thousand."""

NUMPY = frozenset(
    ["numpy.dtype", "numpy.ndarray"]
    + [f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")]
    + [f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")]
)
"""The names under which all versions of NumPy pickle arrays and numbers."""
_NAMES = NUMPY | frozenset(
    """
    collections.OrderedDict dnnlib.util.EasyDict builtins.set builtins.frozenset _codecs.encode
    torch_utils.persistence._reconstruct_persistent_obj
    torch._utils._rebuild_parameter torch._utils._rebuild_tensor_v2 torch.storage._load_from_bytes
    torch.Size torch.device
    """.split()
)
_PATTERNS = re.compile(r"torch\.nn\.modules\.\w+\.\w+|torch\.(bool|u?int\d+|b?float\d+)")
_NUMBERS = {f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}
_MAPPINGS = ("collections.OrderedDict", "dnnlib.util.EasyDict")
_VALUES = frozenset(
    """
    BININT BININT1 BININT2 LONG1 LONG4 INT LONG BINFLOAT FLOAT
    BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    """.split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Name:
    """Something that a pickle refers to by module and name."""

    path: str


@dataclass(eq=False)
class Call:
    """The call that a pickle would have made, and the state it would have given to the result."""

    name: str
    args: tuple[Any, ...]
    state: Any = None
    items: list[Any] = field(default_factory=list)


def read_pickle(stream: IO[bytes] | mmap, source: str) -> Any:
    """The content of a pickle: Python's plain types, `Name` and `Call`. Sets are lists, ordered dictionaries plain.

    Args:
        stream: read to the pickle's end.
        source: how messages call it.

    Raises:
        CheckpointError: if it names anything that tensors and modules do not need, or is truncated or damaged.
    """
    machine = _Machine(source)
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= INSTRUCTIONS:
                raise CheckpointError(f"{source} has more than {INSTRUCTIONS} pickle instructions: not a network")
            machine.step(instruction.name, argument)
        return machine.stack.pop()
    except (ValueError, IndexError, KeyError, TypeError, UnicodeError, OverflowError, MemoryError) as error:
        reason = first_line(error)[:100]
        raise CheckpointError(f"{source} is truncated or damaged; get it again ({reason})") from error


def numpy_array(call: Call, source: Path) -> np.ndarray:
    """An array or a number of NumPy from what it pickles, with no code of the file run.

    Raises:
        CheckpointError: if it is damaged, or not of numbers.
    """
    try:
        return _array(call)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{source} holds an array that is damaged, or not of numbers") from error


def _array(node: Call) -> np.ndarray:
    """The array of shape, dtype, order and bytes in one of three calls.

    `_reconstruct` has them in its state, after a version; `_frombuffer` (protocol 5) in its arguments; `scalar` has no
    shape.
    """
    kind = node.name.rpartition(".")[2]
    order, axes = "C", None
    if kind == "_reconstruct":
        _, shape, dtype, column_major, raw = node.state
        order = "F" if column_major else "C"
    elif kind == "_frombuffer":
        raw, dtype, shape, order, *more = node.args
        axes = more[0] if more else None
    elif kind == "scalar":
        (dtype, raw), shape = node.args, ()
    else:
        raise ValueError("not an array")
    if isinstance(raw, Call) and raw.name == "_codecs.encode":  # bytes in protocol 2
        raw = raw.args[0].encode("latin1")
    code, ends = dtype.args[0], dtype.state[1]
    if dtype.name != "numpy.dtype" or code not in _NUMBERS or ends not in ("<", ">", "|"):
        raise ValueError("not numbers")
    known = np.dtype(ends + code)
    if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) * known.itemsize != len(raw):
        raise ValueError("more or fewer bytes than its shape")
    array = np.frombuffer(raw, known).reshape(shape, order="F" if order == "F" else "C")
    if order == "K" and axes is not None:
        array = array.transpose(axes)
    return array.astype(known.newbyteorder("="))


class _Machine:
    def __init__(self, source: str) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif name in _TUPLES:
            size = _TUPLES[name]
            if len(stack) < size:
                raise IndexError("a tuple of nothing")
            stack[-size:] = [tuple(stack[-size:])]
        elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
            items = self._marked()
            made = {"TUPLE": tuple, "DICT": _pairs}.get(name, list)(items)
            self.stack.append(made)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._marked() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            self._fill(self.stack[-1], _pairs(items))
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self._marked()
            self._fill(self.stack[-1], items)
        elif name == "GLOBAL":
            stack.append(self._name(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(self._name(module, attribute))
        elif name in ("REDUCE", "NEWOBJ"):
            args, target = stack.pop(), stack.pop()
            stack.append(self._call(target, args))
        elif name == "BUILD":
            self._build(stack.pop(), stack[-1])
        elif name == "POP":
            stack.pop()
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise CheckpointError(
                f"{self.source} uses the pickle instruction {name}, which tensors do not need: refused"
            )

    def _marked(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _name(self, module: Any, attribute: Any) -> Name:
        path = f"{module}.{attribute}".replace("__builtin__.", "builtins.")
        if path in _NAMES or _PATTERNS.fullmatch(path):
            return Name(path)
        if path.startswith("dnnlib.tflib."):
            raise CheckpointError(
                f"{self.source} is a pickle of NVIDIA's TensorFlow code; convert it to PyTorch's form first"
            )
        shown = path[:80].encode("ascii", "backslashreplace").decode()
        raise CheckpointError(f"{self.source} asks for {shown}, which tensors do not need: refused; nothing of it ran")

    def _call(self, target: Any, args: Any) -> Any:
        if not isinstance(target, Name) or not isinstance(args, tuple):
            raise CheckpointError(f"{self.source} calls something that is not a name: refused; nothing of it ran")
        if target.path in _MAPPINGS:
            return _pairs([item for pair in args[0] for item in pair]) if args else {}
        return Call(target.path, args)

    @staticmethod
    def _build(state: Any, target: Any) -> None:
        # Dictionaries may carry attributes, such as the versions of a state dict: of no use here.
        if isinstance(target, Call):
            target.state = state
        elif not isinstance(target, dict):
            raise TypeError("state for a plain value")

    @staticmethod
    def _fill(target: Any, more: Any) -> None:
        if isinstance(target, dict) and isinstance(more, dict):
            target.update(more)
        elif isinstance(target, list) and isinstance(more, list):
            target.extend(more)
        elif isinstance(target, Call):
            target.items.append(more)
        else:
            raise TypeError("items for a plain value")


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("a key without a value")
    keys = items[::2]
    if not all(isinstance(key, str | int | float | bytes | None) for key in keys):
        raise TypeError("a key that is not plain")
    return dict(zip(keys, items[1::2], strict=True))
