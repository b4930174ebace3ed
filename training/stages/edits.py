"""Edit directions as tensors, which the editor's stages draw edits from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engines.directions import Direction
from engines.family import ModelFamily
from training.measuring.edits import edit_at


class Edits:
    """E directions: their names, the ends of their ranges (E each), and what a strength of one adds.

    `delta_w` is E x N x D, added to W+ codes; `style_delta` is E x sum(style_channels), added to styles.
    """

    def __init__(self, directions: Sequence[Direction], family: ModelFamily, device: str = "cpu") -> None:
        """
        Raises:
            ValueError: if there are no directions.
        """
        if not directions:
            raise ValueError("the editor is trained on edits: at least one direction is needed")
        self.names = [direction.name for direction in directions]
        self.low = torch.tensor([d.min_strength for d in directions], device=device)
        self.high = torch.tensor([d.max_strength for d in directions], device=device)
        units = [edit_at(direction, 1.0, family, device) for direction in directions]
        self.delta_w, self.style_delta = (torch.cat(parts) for parts in zip(*units, strict=True))

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Random edits: which direction (count) and at what strength of its range (count)."""
        device = self.low.device
        choice = torch.randint(0, len(self.names), (count,), device=device)
        return choice, torch.lerp(self.low[choice], self.high[choice], torch.rand(count, device=device))
