"""A graph as it is exported and verified: a module around networks, and the tensors that it takes and gives."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engines.contracts import TensorSpec

SYSTEM_PREFIX = "system."
"""Every wrapper holds its method under this name, so a parameter's name in a trace is this prefix and its name in the
method's `state_dict()`."""


@dataclass(frozen=True, eq=False)
class BoundGraph:
    """A graph around networks that are there: what is traced, and what verification compares with."""

    name: str
    module: nn.Module
    """The graph's module in evaluation mode; it holds the networks under `SYSTEM_PREFIX`."""
    inputs: list[TensorSpec]
    """The inputs in the order of the module's arguments; the first dimension is the batch."""
    outputs: list[TensorSpec]
    """The outputs in the order of the module's results."""


def batch_shapes(module: nn.Module, inputs: int, dimension: Any) -> Any:
    """The dynamic shapes of a module's inputs, as a tracer takes them: the first dimension of each is that one."""
    shapes = tuple({0: dimension} for _ in range(inputs))
    parameters = inspect.signature(module.forward).parameters.values()
    # What a module gathers in *tensors is one argument to the tracer.
    return (shapes,) if any(p.kind is p.VAR_POSITIONAL for p in parameters) else shapes


def example_inputs(specs: Sequence[TensorSpec], batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Random tensors of those shapes, for tracing: normal for float32, uniform for uint8."""
    source = torch.Generator().manual_seed(seed)
    made: list[Tensor] = []
    for spec in specs:
        shape = (batch, *(int(size) for size in spec.shape[1:]))
        if spec.dtype == "uint8":
            made.append(torch.randint(0, 256, shape, dtype=torch.uint8, generator=source))
        else:
            made.append(torch.randn(shape, generator=source))
    return tuple(made)
