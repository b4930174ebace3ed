"""Feature-style encoder E_0 (eq. 3.1): image to a W+ code and a feature tensor.

The networks of Yao et al. 2022 on ArcFace's IResNet-50, with the strides of the third stage and of the content branch
chosen so that the feature comes out at the resolution at which the generator takes it (section 3.2.1). Neither
stride changes a tensor: names and counts are those of the public checkpoints in both variants.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.ir import STAGE_UNITS, ArcFaceUnit, conv3x3, conv_bn_prelu, stage

POOL = 3
"""Side of the grid to which each stage's output is pooled before the style heads."""


def strides(family: ModelFamily) -> tuple[int, int]:
    """Strides (third stage, content branch) that take a map of 1/4 of the input to the feature's resolution.

    256 to 64 pixels: (1, 1), the paper's. 256 to 16: (2, 2), the original encoder's. Between them the stage strides.

    Raises:
        ValueError: if the longer side of the encoder's input is not 4, 8 or 16 times the feature's side.
    """
    longer = max(family.encoder_size)
    known = {4: (1, 1), 8: (2, 1), 16: (2, 2)}
    ratio, rest = divmod(longer, family.feature_resolution)
    if rest or ratio not in known:
        raise ValueError(
            f"family {family.name}: an encoder input of {longer} pixels must be 4, 8 or 16 times the feature's "
            f"{family.feature_resolution}; change encoder_size or feature_resolution"
        )
    return known[ratio]


def pooling_matrix(size: int, parts: int) -> Tensor:
    """parts x size; row i averages the pixels floor(i size / parts) .. ceil((i + 1) size / parts) - 1."""
    matrix = torch.zeros(parts, size)
    for i in range(parts):
        first, end = i * size // parts, -(-(i + 1) * size // parts)
        matrix[i, first:end] = 1.0 / (end - first)
    return matrix


class GridPool(nn.Module):
    """Adaptive average pooling of B x C x h x w to B x C x POOL x POOL as two matrix products.

    The windows are not all of one size where POOL does not divide a side, which exporters unroll into hundreds of
    gathers; the map is linear and separable, so two small constant matrices do the same.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", pooling_matrix(height, POOL), persistent=False)
        self.register_buffer("columns", pooling_matrix(width, POOL).T.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows @ (x @ self.columns)


class FeatureStyleEncoder(nn.Module):
    """Image to offsets from the mean latent code and the feature tensor f.

    The generator's feature is square. The paper does not say how a 192x256 car input, whose map has 48x64 pixels,
    meets it; here rows of zeros are added above and below (as CLCAE does), which puts the map exactly where the kept
    image rows 64..448 of 512 lie.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        width, channels = family.encoder_width, family.feature_channels
        third, content = strides(family)
        self.margin = (
            family.feature_resolution - family.encoder_size[0] * family.feature_resolution // max(family.encoder_size)
        ) // 2
        widths = (width, width, 2 * width, 4 * width, 8 * width)
        stages = []
        self.pools = nn.ModuleList()
        height, breadth = family.encoder_size
        for n, (count, stride) in enumerate(zip(STAGE_UNITS, (2, 2, third, 2), strict=True)):
            stages.append(nn.Sequential(*stage(ArcFaceUnit, widths[n], widths[n + 1], count, stride)))
            height, breadth = height // stride, breadth // stride
            self.pools.append(GridPool(height, breadth))
        self.conv = conv_bn_prelu(3, width)
        self.block_1, self.block_2, self.block_3, self.block_4 = stages
        self.content_layer = nn.Sequential(
            nn.BatchNorm2d(4 * width),
            conv3x3(4 * width, channels),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            conv3x3(channels, channels, content),
            nn.BatchNorm2d(channels),
        )
        pooled = sum(widths[1:]) * POOL * POOL
        self.styles = nn.ModuleList(nn.Linear(pooled, family.style_dim) for _ in range(family.w_rows))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image B x 3 x h x w in [-1, 1], h x w = `family.encoder_size`.

        Returns:
            Offsets B x N x D, to which the mean latent code is not added, and the feature f B x C x H x W.
        """
        x1 = self.block_1(self.conv(image))
        x2 = self.block_2(x1)
        x3 = self.block_3(x2)
        x4 = self.block_4(x3)
        pooled = torch.cat([pool(x) for pool, x in zip(self.pools, (x1, x2, x3, x4), strict=True)], dim=1).flatten(1)
        offsets = torch.stack([head(pooled) for head in self.styles], dim=1)
        feature = self.content_layer(x3)
        return offsets, F.pad(feature, (0, 0, self.margin, self.margin)) if self.margin else feature
