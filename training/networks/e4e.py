"""e4e encoder (Tov et al. 2021): an IR-SE-50 with a feature pyramid and one style head per W+ row.

It gives the editing-friendly inversion w_e of the paper. Tensor names and counts are those of the public
checkpoints (their `encoder.` part).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.ir import IRSE50, conv3x3
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


class FeaturePyramid(IRSE50):
    """IR-SE-50 with the lateral 1x1 convolutions of a feature pyramid.

    Where the widest stage and the pyramid differ in width (never in the official sizes), a 1x1 convolution
    `toplayer` joins them, as in feature pyramid networks.
    """

    def __init__(self, family: ModelFamily) -> None:
        width, head = family.encoder_width, family.head_width
        super().__init__(width)
        self.toplayer = nn.Conv2d(8 * width, head, 1) if 8 * width != head else nn.Identity()
        self.latlayer1 = nn.Conv2d(4 * width, head, 1)
        self.latlayer2 = nn.Conv2d(2 * width, head, 1)

    def merge(self, trunk: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The maps of `trunk`, fine to coarse, to the pyramid's, coarse to fine."""
        c1, c2, c3 = trunk
        p3 = self.toplayer(c3)
        p2 = _upsample_add(p3, self.latlayer1(c2))
        p1 = _upsample_add(p2, self.latlayer2(c1))
        return p3, p2, p1

    def pyramid(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse, middle and fine maps: B x head_width at 1/16, 1/8 and 1/4 of the image's sides."""
        return self.merge(self.trunk(image))


def pyramid_level(row: int) -> int:
    """The pyramid's map (0 coarse, 1 middle, 2 fine) that a W+ row is read from."""
    return 0 if row < COARSE_ROWS else 1 if row < MIDDLE_ROWS else 2


def style_head(family: ModelFamily, row: int) -> StyleHead:
    """The head of a W+ row, for the map that `pyramid_level` names."""
    side = max(family.encoder_size) // (16, 8, 4)[pyramid_level(row)]
    return StyleHead(family.head_width, family.head_width, family.style_dim, side)


class E4EEncoder(FeaturePyramid):
    """Image to offsets from the mean latent code.

    Row 0 is the first head's output; every other row is row 0 plus its own head's delta.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__(family)
        self.styles = nn.ModuleList(style_head(family, row) for row in range(family.w_rows))

    def rows(self, pyramid: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The pyramid's maps to offsets B x N x D."""
        rows = [head(pyramid[pyramid_level(i)]) for i, head in enumerate(self.styles)]
        return torch.stack([rows[0], *(rows[0] + delta for delta in rows[1:])], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """Image B x 3 x h x w in [-1, 1], h x w = `family.encoder_size`, to offsets B x N x D.

        The mean latent code is not added.
        """
        return self.rows(self.pyramid(image))


def _upsample_add(x: Tensor, lateral: Tensor) -> Tensor:
    """The sum of a map, enlarged, and the lateral one. Released weights were trained with align_corners=True here,
    unlike every other resize of the field."""
    return F.interpolate(x, size=lateral.shape[2:], mode="bilinear", align_corners=True) + lateral
