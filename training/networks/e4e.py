"""e4e encoder (Tov et al. 2021): an IR-SE-50 with a feature pyramid and one style head per W+ row.

It gives the editing-friendly inversion w_e of the paper. Tensor names and counts are those of the public
checkpoints (their `encoder.` part).
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.ir import STAGE_UNITS, IRUnit, conv3x3, stage, stem
from training.networks.stylegan2 import EqualLinear

COARSE_ROWS = 3
"""Rows 0..2 are read from the coarsest map."""
MIDDLE_ROWS = 7
"""Rows 3..6 are read from the middle map, all further ones from the finest."""


class StyleHead(nn.Module):
    """Strided convolutions down to one pixel, then a linear layer: B x I x h x w to B x D."""

    def __init__(self, in_channels: int, width: int, style_dim: int, side: int) -> None:
        """`side` is the longer side of the map in pixels; ceil(log2(side)) halvings leave one pixel."""
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(math.ceil(math.log2(side))):
            layers += [conv3x3(in_channels if i == 0 else width, width, 2, bias=True), nn.LeakyReLU(0.01)]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualLinear(width, style_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


class E4EEncoder(nn.Module):
    """Image to offsets from the mean latent code.

    Row 0 is the first head's output; every other row is row 0 plus its own head's delta.

    Where the widest stage and the pyramid differ in width (never in the official sizes), a 1x1 convolution
    `toplayer` joins them, as in feature pyramid networks.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        width, head = family.encoder_width, family.head_width
        unit = functools.partial(IRUnit, squeeze=True)
        self.input_layer = stem(width)
        units: list[nn.Module] = []
        before = width
        for count, factor in zip(STAGE_UNITS, (1, 2, 4, 8), strict=True):
            units += stage(unit, before, factor * width, count)
            before = factor * width
        self.body = nn.Sequential(*units)
        self.toplayer = nn.Conv2d(8 * width, head, 1) if 8 * width != head else nn.Identity()
        self.latlayer1 = nn.Conv2d(4 * width, head, 1)
        self.latlayer2 = nn.Conv2d(2 * width, head, 1)
        longer = max(family.encoder_size)
        self.styles = nn.ModuleList(
            StyleHead(head, head, family.style_dim, longer // (16 if i < COARSE_ROWS else 8 if i < MIDDLE_ROWS else 4))
            for i in range(family.w_rows)
        )

    def pyramid(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse, middle and fine maps: B x head_width at 1/16, 1/8 and 1/4 of the image's sides."""
        last = [sum(STAGE_UNITS[: n + 1]) - 1 for n in range(4)]
        x = self.input_layer(image)
        kept: list[Tensor] = []
        for i, unit in enumerate(self.body):
            x = unit(x)
            if i in last[1:]:
                kept.append(x)
        c1, c2, c3 = kept
        p3 = self.toplayer(c3)
        p2 = _upsample_add(p3, self.latlayer1(c2))
        p1 = _upsample_add(p2, self.latlayer2(c1))
        return p3, p2, p1

    def forward(self, image: Tensor) -> Tensor:
        """Image B x 3 x h x w in [-1, 1], h x w = `family.encoder_size`, to offsets B x N x D.

        The mean latent code is not added.
        """
        coarse, middle, fine = self.pyramid(image)
        rows = [
            head(coarse if i < COARSE_ROWS else middle if i < MIDDLE_ROWS else fine)
            for i, head in enumerate(self.styles)
        ]
        return torch.stack([rows[0], *(rows[0] + delta for delta in rows[1:])], dim=1)


def _upsample_add(x: Tensor, lateral: Tensor) -> Tensor:
    """Released weights were trained with align_corners=True here, unlike every other resize of the field."""
    return F.interpolate(x, size=lateral.shape[2:], mode="bilinear", align_corners=True) + lateral
