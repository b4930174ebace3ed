"""Differentiable augmentation (Zhao et al. 2020) of what the discriminator sees, against overfitting on small sets."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def random_flip(x: Tensor) -> Tensor:
    """Mirrors each image B x 3 x H x W left to right with probability one half."""
    return torch.where(torch.rand(x.shape[0], 1, 1, 1, device=x.device) < 0.5, x, x.flip(3))


def _uniform(x: Tensor, low: float, high: float) -> Tensor:
    return torch.empty(x.shape[0], 1, 1, 1, device=x.device, dtype=x.dtype).uniform_(low, high)


def color(x: Tensor) -> Tensor:
    """Random brightness, saturation and contrast per image."""
    x = x + _uniform(x, -0.5, 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * _uniform(x, 0.0, 2.0) + grey
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * _uniform(x, 0.5, 1.5) + mean


def translation(x: Tensor, ratio: float = 0.125) -> Tensor:
    """Random shift of each image by up to `ratio` of its side, zeros moving in."""
    batch, _, height, width = x.shape
    reach_y, reach_x = round(height * ratio), round(width * ratio)
    dy = torch.randint(0, 2 * reach_y + 1, (batch, 1, 1), device=x.device)
    dx = torch.randint(0, 2 * reach_x + 1, (batch, 1, 1), device=x.device)
    padded = F.pad(x, (reach_x, reach_x, reach_y, reach_y)).permute(0, 2, 3, 1)
    rows = torch.arange(height, device=x.device)[None, :, None] + dy
    columns = torch.arange(width, device=x.device)[None, None, :] + dx
    images = torch.arange(batch, device=x.device)[:, None, None]
    return padded[images, rows, columns].permute(0, 3, 1, 2).contiguous()


def cutout(x: Tensor, ratio: float = 0.5) -> Tensor:
    """Zeroes a square of `ratio` of the side at a random place in each image."""
    batch, _, height, width = x.shape
    half_y, half_x = max(int(height * ratio) // 2, 1), max(int(width * ratio) // 2, 1)
    cy = torch.randint(0, height, (batch, 1, 1), device=x.device)
    cx = torch.randint(0, width, (batch, 1, 1), device=x.device)
    dy = torch.arange(height, device=x.device)[None, :, None] - cy
    dx = torch.arange(width, device=x.device)[None, None, :] - cx
    hole = (dy >= -half_y) & (dy < half_y) & (dx >= -half_x) & (dx < half_x)
    return x * ~hole[:, None]


POLICIES: dict[str, Callable[[Tensor], Tensor]] = {"color": color, "translation": translation, "cutout": cutout}


def diff_augment(x: Tensor, policy: tuple[str, ...]) -> Tensor:
    """Applies the named augmentations in order to images B x 3 x H x W in [-1, 1].

    Raises:
        ValueError: for a name that is not in `POLICIES`.
    """
    for name in policy:
        if name not in POLICIES:
            raise ValueError(f"unknown augmentation {name!r}; there are {', '.join(POLICIES)}")
        x = POLICIES[name](x)
    return x
