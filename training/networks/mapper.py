"""StyleCLIP's latent mapper (Patashnik et al. 2021, section 5): a network that gives an edit's W+ delta for a code.

Three small networks take the coarse, medium and fine rows of the code; one that a mapper lacks leaves its rows alone.
An edited code is w + 0.1 * M(w), as in the official inference script. Since the delta depends on the code, a mapper is
a network and not a `Direction`.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn

from training.networks.stylegan2 import EqualLinear, PixelNorm

LEVELS: dict[str, tuple[int, int | None]] = {"coarse": (0, 4), "medium": (4, 8), "fine": (8, None)}
"""First and one-past-last W+ row of each level."""

LAYERS = 4
"""Linear layers of each level, each with a leaky ReLU."""

STRENGTH = 0.1
"""The factor of the delta in the official inference."""


class LatentMapper(nn.Module):
    """B x N x D codes to B x N x D deltas.

    Args:
        style_dim: D.
        levels: those of `LEVELS` that the mapper has.

    Raises:
        ValueError: for no level, or an unknown one.
    """

    def __init__(self, style_dim: int = 512, levels: Collection[str] = tuple(LEVELS)) -> None:
        super().__init__()
        if not levels or not set(levels) <= set(LEVELS):
            raise ValueError(f"a latent mapper has some of the levels {', '.join(LEVELS)}, got {list(levels)}")
        # The norm runs over the rows of a level and not over the channels, as in the official code.
        self.levels = nn.ModuleDict(
            {
                level: nn.Sequential(
                    PixelNorm(),
                    *(EqualLinear(style_dim, style_dim, lr=0.01, activate=True) for _ in range(LAYERS)),
                )
                for level in LEVELS
                if level in levels
            }
        )

    def forward(self, w_plus: Tensor) -> Tensor:
        parts = []
        for level, (first, end) in LEVELS.items():
            rows = w_plus[:, first:end]
            parts.append(self.levels[level](rows) if level in self.levels else torch.zeros_like(rows))
        return torch.cat(parts, dim=1)


@torch.no_grad()
def mapper_delta(mapper: LatentMapper, code: np.ndarray, strength: float = STRENGTH) -> np.ndarray:
    """The delta that a mapper adds to a code, for the `delta_w` of an edit.

    Args:
        code: N x D, such as an inversion's `w_e`.
        strength: the official inference uses 0.1.

    Returns:
        N x D float32.
    """
    device = next(mapper.parameters()).device
    w_plus = torch.from_numpy(np.asarray(code, np.float32)).to(device)
    return (strength * mapper(w_plus[None])[0]).cpu().numpy()
