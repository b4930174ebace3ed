"""The common tools of the light family's stages: windows of features, and losses on the pictures rendered from them.

Everything above the feature is convolutional with a small reach, so a window of feature cells gives the picture's part
above it: training on windows costs their share of a picture. The generator is frozen and runs in bfloat16 there, which
takes less than half the time of float32 on a CPU bound by memory and moves a pixel by about a third of a grey level.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.losses.lpips import LPIPS

MARGIN = 2
"""Cells along a window's edges, but for the picture's own, that what surrounds them would have changed."""


@dataclass(frozen=True, kw_only=True)
class PixelWeights:
    """Weights of the terms between two pictures."""

    l1: float = 1.0
    l2: float = 0.5
    gradient: float = 0.5
    """Weight of the absolute difference of horizontal and vertical pixel steps: sharpness."""
    lpips: float = 0.5


def picture_loss(
    output: Tensor, target: Tensor, lpips: LPIPS | None, weights: PixelWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the terms between pictures B x 3 x h x w in [-1, 1], and the unweighted terms."""
    difference = output - target
    terms = {
        "l1": difference.abs().mean(),
        "l2": difference.square().mean(),
        "gradient": difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean(),
    }
    if lpips is not None:
        terms["lpips"] = lpips(output, target).mean()
    total = sum((getattr(weights, name) * term for name, term in terms.items()), start=output.new_zeros(()))
    return total, {name: term.detach() for name, term in terms.items()}


class Windowed:
    """A frozen MobileStyleGAN in bfloat16 whose upper half renders windows of features.

    Args:
        generator: with gradients off; it is copied.
    """

    def __init__(self, generator: nn.Module, device: str = "cpu") -> None:
        self.family: ModelFamily = generator.family
        self.generator = copy.deepcopy(generator).to(device).bfloat16().eval().requires_grad_(False)
        self.scale = self.family.size // self.family.feature_resolution
        """Pixels of the picture under a cell's side."""
        self.input_scale = max(self.family.encoder_size) // self.family.feature_resolution
        """Pixels of the encoders' input under a cell's side."""

    def origins(self, count: int, side: int) -> Tensor:
        """Rows and columns of random windows' first cells, `count` x 2.

        Draws reach a quarter of a window beyond the picture and are brought back to its edge: what zeros beyond the
        edge do to the features there is learnt from windows at it alone.
        """
        last, beyond = self.family.feature_resolution - side, side // 4
        return torch.randint(-beyond, last + beyond + 1, (count, 2)).clamp(0, last)

    def cut(self, images: Tensor, origins: Tensor, side: int, scale: int) -> Tensor:
        """Windows of `side` cells of B x C x h x w maps with `scale` pixels per cell."""
        parts = [
            image[:, y * scale : (y + side) * scale, x * scale : (x + side) * scale]
            for image, (y, x) in zip(images, origins.tolist(), strict=True)
        ]
        return torch.stack(parts)

    def lower(self, w_plus: Tensor) -> Tensor:
        """G(w^{1:k}), float32."""
        return self.generator.lower(w_plus.bfloat16())[0].float()

    def upper(self, feature: Tensor, w_plus: Tensor, origins: Tensor | None = None) -> Tensor:
        """The picture above a feature or windows of it, float32, not clamped."""
        return self.generator.upper(feature.bfloat16(), w_plus.bfloat16(), origin=origins).float()

    def shrink(self, picture: Tensor) -> Tensor:
        """A picture averaged down to the encoders' scale."""
        return F.avg_pool2d(picture, self.scale // self.input_scale)

    def settled(self, output: Tensor, target: Tensor, origins: Tensor, scale: int) -> Tensor:
        """Windows of pictures with the target in place of the margins, so that no loss sees these.

        Args:
            output: B x C x s x s, rendered from windows of features.
            target: the same windows of whole pictures.
            origins: B x 2, the windows' first cells.
            scale: pixels per cell.
        """
        side, cells = output.shape[-1], output.shape[-1] // scale
        last = self.family.feature_resolution - cells
        mask = torch.zeros(len(output), 1, side, side, device=output.device)
        for one, origin in zip(mask, origins.tolist(), strict=True):
            rows, columns = (
                slice(0 if first == 0 else MARGIN * scale, side if first == last else side - MARGIN * scale)
                for first in origin
            )
            one[:, rows, columns] = 1.0
        return torch.where(mask > 0, output, target)


def laid_over(pictures: Tensor, windows: Tensor, origins: Tensor, scale: int) -> Tensor:
    """Pictures with windows laid over them.

    Args:
        pictures: B x C x h x w.
        windows: B x C x s x s.
        origins: B x 2, the windows' first cells.
        scale: pixels per cell.
    """
    results = []
    side = windows.shape[-1]
    for picture, window, (y, x) in zip(pictures, windows, (origins * scale).tolist(), strict=True):
        height, width = picture.shape[1:]
        pad = (x, width - x - side, y, height - y - side)
        mask = F.pad(torch.ones_like(window[:1]), pad)
        results.append(F.pad(window, pad) + picture * (1 - mask))
    return torch.stack(results)
