"""Layers that more than one method has."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.discriminator import EqualConv2d
from training.networks.ir import IRUnit
from training.networks.stylegan2 import SQRT2


class ScaledLeakyReLU(nn.Module):
    """leaky_relu(x, 0.2) * sqrt(2), without a bias."""

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.2) * SQRT2


def condition(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions with equalised learning rate and bias, a scaled leaky ReLU between them."""
    return nn.Sequential(
        EqualConv2d(in_channels, out_channels, 3, padding=1),
        ScaledLeakyReLU(),
        EqualConv2d(out_channels, out_channels, 3, padding=1),
    )


def ir_units(*shapes: tuple[int, int, int]) -> nn.Sequential:
    """IR units without squeeze-excitation; a shape is (in, out, stride)."""
    return nn.Sequential(*(IRUnit(*shape) for shape in shapes))
