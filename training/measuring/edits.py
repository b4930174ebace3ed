"""The tensors that a direction adds at a strength."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from engines.directions import Direction, resolve
from engines.family import ModelFamily


def edit_at(
    direction: Direction, strength: float, family: ModelFamily, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The additions to W+ codes, 1 x N x D, and to styles, 1 x sum(style_channels), at a strength of any size.

    A strength outside the direction's range is no reason to warn here: ranges are measured by it.
    """
    low, high = min(direction.min_strength, strength), max(direction.max_strength, strength)
    wide = replace(direction, min_strength=low, max_strength=high)
    edit = resolve({wide.name: wide}, {wide.name: strength}, family)
    codes, styles = (torch.from_numpy(delta).to(device)[None] for delta in (edit.delta_w, edit.style_delta))
    return codes, styles
