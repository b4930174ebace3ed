"""The weights of a system, once, in FP16: rounding, the safetensors file, and where each tensor lies in it.

Exported graphs read their weights as FP16 and cast them to FP32, so what they compute is the network with FP16-rounded
weights: `rounded` gives that network, and verification compares with it. The safetensors layout (an 8-byte
little-endian header length, a JSON header with `data_offsets` relative to its end, then raw little-endian tensors) is
what ONNX external data needs: location, offset and length.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engines.store import atomic_file
from export.errors import ExportError

Network = TypeVar("Network", bound=nn.Module)

FP16_MAX = 65504.0
"""Largest finite FP16 value."""

COARSE = 0.01
"""A tensor whose rounding error exceeds this share of its L2 norm is reported: its values lie below FP16's range."""

_HEADER_LIMIT = 100_000_000
"""The format's own bound on the header, in bytes."""


@dataclass(frozen=True, kw_only=True)
class WeightEntry:
    """One tensor's place in a safetensors file."""

    dtype: str
    """The format's name of the type, such as "F16"."""
    shape: tuple[int, ...]
    offset: int
    """First byte, counted from the start of the file."""
    length: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class HalfWeights:
    """FP16 tensors by state-dict name, and what rounding did to them."""

    tensors: dict[str, Tensor]
    coarse: dict[str, float]
    """Tensors with a relative L2 rounding error above `COARSE`, and that error (1.0: all values became zero)."""
    worst: float
    """Largest relative L2 rounding error of any tensor."""

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.tensors.values())


def _round(name: str, tensor: Tensor) -> tuple[Tensor, float]:
    """FP16 tensor and relative L2 rounding error.

    Raises:
        ExportError: if a value is not finite, or beyond what FP16 holds.
    """
    value = tensor.detach()
    # `max` and `min` hand NaN through, and need no copy of the tensor as `abs` does.
    largest = max(value.max().item(), -value.min().item()) if value.numel() else 0.0
    if largest != largest or largest == float("inf"):
        raise ExportError(f"weight {name} has values that are not finite numbers; train again or restore a checkpoint")
    if largest > FP16_MAX:
        raise ExportError(
            f"weight {name} reaches {largest:.6g}, beyond the {FP16_MAX:.0f} that FP16 holds; rescale that layer"
        )
    half = value.to(device="cpu", dtype=torch.float16, memory_format=torch.contiguous_format, copy=True)
    norm = torch.linalg.vector_norm(value.float()).item()
    error = torch.linalg.vector_norm(value.float().cpu() - half.float()).item()
    return half, error / norm if norm > 0 else 0.0


def half_weights(system: nn.Module) -> HalfWeights:
    """All floating-point tensors of a system's state dict, rounded to FP16.

    Integer buffers (BatchNorm's `num_batches_tracked`) play no part in inference and are left out.

    Raises:
        ExportError: if a value is not finite or exceeds `FP16_MAX`; the message names the tensor.
    """
    tensors: dict[str, Tensor] = {}
    coarse: dict[str, float] = {}
    worst = 0.0
    for name, tensor in system.state_dict().items():
        if not tensor.is_floating_point():
            continue
        tensors[name], error = _round(name, tensor)
        worst = max(worst, error)
        if error > COARSE:
            coarse[name] = error
    return HalfWeights(tensors=tensors, coarse=coarse, worst=worst)


def rounded(system: Network) -> Network:
    """A copy of the system in evaluation mode, on the CPU, in FP32, with every tensor rounded to FP16: what exported
    graphs compute.

    Raises:
        ExportError: as `half_weights`.
    """
    duplicate = copy.deepcopy(system).cpu().float().eval().requires_grad_(False)
    for name, tensor in duplicate.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(_round(name, tensor)[0])
    return duplicate


def write_weights(tensors: Mapping[str, Tensor], path: Path) -> dict[str, WeightEntry]:
    """Writes a safetensors file, whole or not at all, and returns its table.

    The bytes depend on names and values alone.
    """
    with atomic_file(path) as temporary:
        save_file(dict(tensors), temporary, metadata={"format": "pt"})
    return weight_table(path)


def weight_table(path: Path) -> dict[str, WeightEntry]:
    """The places of a safetensors file's tensors by name, from its header alone.

    Raises:
        ExportError: if the file is not safetensors, or a tensor lies outside it.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise ExportError(f"{path.name} is not a safetensors file: its header would be {length} bytes long")
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            table = {
                name: WeightEntry(
                    dtype=entry["dtype"],
                    shape=tuple(entry["shape"]),
                    offset=8 + length + entry["data_offsets"][0],
                    length=entry["data_offsets"][1] - entry["data_offsets"][0],
                )
                for name, entry in entries.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ExportError(f"{path.name} is not a safetensors file: its header cannot be read") from error
    for name, entry in table.items():
        if entry.length < 0 or entry.offset < 8 + length or entry.offset + entry.length > size:
            raise ExportError(f"{path.name} is damaged: tensor {name} lies outside the file")
    return table
