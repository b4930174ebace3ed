"""StyleGAN2 discriminator (Karras et al. 2020): residual, with minibatch standard deviation.

Tensor names are those of the widely used PyTorch port (`convs.*`, `final_conv.*`, `final_linear.*`).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.stylegan2 import SQRT2, Blur, EqualLinear, FusedLeakyReLU


class EqualConv2d(nn.Module):
    """Convolution with equalised learning rate: the stored weight is N(0, 1), scaled by 1 / sqrt(fan in)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale = 1.0 / math.sqrt(in_channels * kernel * kernel)
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, stride=self.stride, padding=self.padding)


def _conv(in_channels: int, out_channels: int, kernel: int, *, down: bool = False, activate: bool = True):
    layers: list[nn.Module] = []
    if down:
        pad = (4 - 2) + (kernel - 1)
        layers.append(Blur(((pad + 1) // 2, pad // 2)))
    layers.append(
        EqualConv2d(
            in_channels, out_channels, kernel, stride=2 if down else 1, padding=0 if down else kernel // 2, bias=False
        )
    )
    if activate:
        layers.append(FusedLeakyReLU(out_channels))
    return nn.Sequential(*layers)


class ResBlock(nn.Module):
    """Two convolutions, the second downsampling, and a downsampling 1x1 skip, averaged in energy."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, in_channels, 3)
        self.conv2 = _conv(in_channels, out_channels, 3, down=True)
        self.skip = _conv(in_channels, out_channels, 1, down=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / SQRT2


def minibatch_stddev(x: Tensor, group: int = 4) -> Tensor:
    """Appends one channel: the standard deviation over groups of the batch, averaged over everything else.

    The members of a group lie batch/group apart. A batch that the group does not divide is one group.
    """
    batch, channels, height, width = x.shape
    group = min(batch, group)
    if batch % group:
        group = batch
    y = x.view(group, batch // group, channels, height, width)
    y = torch.sqrt(y.var(dim=0, unbiased=False) + 1e-8).mean(dim=(1, 2, 3), keepdim=True)
    return torch.cat([x, y.repeat(group, 1, height, width)], dim=1)


class Discriminator(nn.Module):
    """Image B x 3 x S x S in [-1, 1] to a realness logit B x 1.

    Args:
        family: says how wide the layers are.
        size: the side S, a power of two; None: the family's. A smaller one has the last layers of the family's own.

    Raises:
        ValueError: if `size` is not one of the family's resolutions from 8 pixels on.
    """

    def __init__(self, family: ModelFamily, size: int | None = None) -> None:
        super().__init__()
        side = size or family.size
        if side not in family.resolutions[1:]:
            raise ValueError(f"a discriminator of {family.name} takes 8, 16 ... {family.size} pixels, not {side}")
        resolutions = [r for r in family.resolutions[::-1] if r <= side]
        self.convs = nn.Sequential(
            _conv(3, family.channels(side), 1),
            *(ResBlock(family.channels(here), family.channels(below)) for here, below in pairwise(resolutions)),
        )
        top = family.channels(4)
        self.final_conv = _conv(top + 1, top, 3)
        self.final_linear = nn.Sequential(EqualLinear(top * 16, top, activate=True), EqualLinear(top, 1))

    def forward(self, image: Tensor) -> Tensor:
        x = minibatch_stddev(self.convs(image))
        return self.final_linear(self.final_conv(x).flatten(1))
