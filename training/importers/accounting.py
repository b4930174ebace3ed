"""Tensors against the network they are for: names, shapes, numbers, and the shapes in which mean codes are stored."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from training.importers.errors import CheckpointError
from training.importers.ledger import listed


def mean_code(value: Tensor, shape: torch.Size, source: str) -> Tensor:
    """A mean code stored as [D], [1, D], [n, D] or [1, n, D] in the shape asked for: (D), (1, D) or (N, D).

    One row is repeated; of more rows than N the first N are taken. Where a single row is asked for, all must be equal.

    Raises:
        CheckpointError: if it has another width, too few rows, or rows that differ where one is asked for.
    """
    rows = value
    while rows.dim() > 2 and rows.shape[0] == 1:
        rows = rows[0]
    if rows.dim() == 1:
        rows = rows[None]
    width = shape[-1]
    if rows.dim() != 2 or rows.shape[1] != width or not len(rows):
        raise CheckpointError(f"{source}: latent_avg has shape {_shape(value)}; it must be {width} wide")
    wanted = shape[0] if len(shape) == 2 else 1
    if wanted == 1:
        # A repeated mean is the same number in every row, to the bit.
        if not bool((rows == rows[0]).all()):
            raise CheckpointError(
                f"{source}: latent_avg has {len(rows)} rows that differ; this method needs a single one"
            )
        rows = rows[:1]
    elif len(rows) == 1:
        rows = rows.expand(wanted, -1)
    elif len(rows) < wanted:
        raise CheckpointError(f"{source}: latent_avg has {len(rows)} rows, and the generator takes {wanted}")
    return rows[:wanted].reshape(shape)


def account(tensors: dict[str, Tensor], expected: Mapping[str, Tensor], what: str, source: str) -> dict[str, Tensor]:
    """All expected tensors, contiguous and in FP32 (counters in int64).

    Args:
        tensors: named as in the network; emptied on the way, so that no tensor is held twice.
        expected: the network's state dict; only shapes and types are read.
        what: the network, in words.
        source: the files, for messages.

    Raises:
        CheckpointError: if tensors are missing, unexpected, misshaped, or not finite numbers; the message counts them
            and names the first.
    """
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    misshaped = [
        f"{name}: {_shape(tensors[name])}, not {_shape(other)}"
        for name, other in expected.items()
        if name in tensors and tensors[name].shape != other.shape
    ]
    problems = [
        listed(names, noun)
        for names, noun in (
            (missing, "missing tensor"),
            (unexpected, "unexpected tensor"),
            (misshaped, "misshaped tensor"),
        )
        if names
    ]
    if problems:
        raise CheckpointError(f"{source} does not fit {what}: {'; '.join(problems)}")
    loaded: dict[str, Tensor] = {}
    broken: list[str] = []
    for name, other in expected.items():
        value = tensors.pop(name).detach()
        if (
            value.is_floating_point() != other.is_floating_point()
            or value.is_complex()
            or value.layout != torch.strided
        ):
            broken.append(name)
            continue
        loaded[name] = value.to(other.dtype).contiguous()
        if not bool(torch.isfinite(loaded[name]).all()):
            broken.append(name)
    if broken:
        raise CheckpointError(
            f"{source} is damaged: {listed(broken, 'tensor')} without finite numbers of the right type"
        )
    return loaded


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
