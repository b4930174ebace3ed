"""StyleRes (Pehlivan et al. 2023): residual features, gated by the edited feature they are added to."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.methods.generator import TappedGenerator, first_conv_point
from training.methods.protocol import FACES, Method, MethodInfo, per_row
from training.networks.e4e import E4EEncoder
from training.networks.ir import conv3x3

CLAMP = 256.0
"""Bound of every synthesis layer's output in the generator it was trained with."""


class ResLayer(nn.Module):
    """conv3x3, leaky ReLU (0.2), conv3x3 plus a shortcut; no norm, nothing after the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.res_layer = nn.Sequential(
            conv3x3(in_channels, out_channels, bias=True),
            nn.LeakyReLU(0.2),
            conv3x3(out_channels, out_channels, stride, bias=True),
        )
        plain = in_channels == out_channels and stride == 1
        self.shortcut_layer: nn.Module = (
            nn.Identity() if plain else nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


def _layers(channels: int, count: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*(ResLayer(channels, channels, stride if i == 0 else 1) for i in range(count)))


def _enlarged(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class Alignment(nn.Module):
    """Encoder map B x E x H x W and unedited generator feature B x C x H x W, joined by a U-Net: B x C x H x W."""

    def __init__(self, encoder_channels: int, channels: int) -> None:
        super().__init__()
        self.first_layer = nn.Conv2d(encoder_channels + channels, channels, 1)
        self.conv1 = _layers(channels, 1)
        self.conv2 = _layers(channels, 2, 2)
        self.conv3 = _layers(channels, 2, 2)
        self.dconv1 = _layers(channels, 2)
        self.dconv2 = _layers(channels, 2)
        # The official files have these tensors; nothing runs them.
        self.dconv3 = _layers(channels, 2)
        self.out_layer = nn.Conv2d(channels, channels, 1)

    def forward(self, encoded: Tensor, feature: Tensor) -> Tensor:
        f1 = self.conv1(self.first_layer(torch.cat([encoded, feature], dim=1)))
        f2 = self.conv2(f1)
        f3 = self.conv3(f2)
        x = self.dconv1(_enlarged(f3, f2.shape[2:]) + f2)
        x = self.dconv2(_enlarged(x, f1.shape[2:]) + f1)
        return self.out_layer(x)


class Extraction(nn.Module):
    """Residual of the photo from the aligned feature: B x C x H x W to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first_layer = nn.Conv2d(channels, channels, 1)
        self.convs = _layers(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(self.first_layer(x))


class Gates(nn.Module):
    """The running feature and the residual, each B x C x H x W, to a change B x C x H x W and a gate B x 1 x H x W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down1 = conv3x3(channels, channels // 2, bias=True)
        self.down2 = conv3x3(channels, channels // 2, bias=True)
        self.convs = _layers(channels, 3)
        self.convs2 = nn.Sequential(*_layers(channels, 2), ResLayer(channels, 1))

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([self.down1(x), self.down2(residual)], dim=1)
        return self.convs(both), self.convs2(both).sigmoid()


class StyleResInversion(NamedTuple):
    """Code and residual."""

    w: Tensor
    """B x N x D."""
    residual: Tensor
    """The residual of the photo against its unedited generator feature, B x C x H x W."""


class StyleRes(Method):
    """x + gate * change after the first convolution at the feature's resolution.

    In the official file the three modules are part of the generator, at `synthesis.b64.` and these names.
    """

    info = MethodInfo(
        key="styleres",
        title="StyleRes",
        paper="Pehlivan et al. 2023, StyleRes: transforming the residuals for real image editing with StyleGAN",
        families=(FACES,),
        licence="NVIDIA Source Code License for StyleRes: non-commercial, research and evaluation",
        convention="all tensors but the mapping network; e4e + partial and full generator pass + modules",
    )

    # `PIL.Image.Image.resize` with its own default.
    resize = "bicubic"

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.set_family(family)
        channels = family.feature_channels
        self.point = first_conv_point(family.feature_resolution)
        self.encoder = E4EEncoder(family)
        self.modify_feature_alignment = Alignment(2 * family.encoder_width, channels)
        self.modify_feature_extraction = Extraction(channels)
        self.modify_feature_gates = Gates(channels)
        self.decoder = TappedGenerator(family, clamp=CLAMP)

    def invert(self, image: Tensor) -> StyleResInversion:
        trunk = self.encoder.trunk(image)
        w = self.encoder.rows(self.encoder.merge(trunk)) + self.latent_avg
        aligned = self.modify_feature_alignment(trunk[0], self.decoder.feature(w, self.point))
        return StyleResInversion(w, self.modify_feature_extraction(aligned))

    def edit(self, inversion: StyleResInversion, delta: Tensor) -> Tensor:
        def gated(x: Tensor) -> Tensor:
            change, gate = self.modify_feature_gates(x, inversion.residual)
            return x * (1 - gate) + (x + change) * gate

        return self.decoder.render(inversion.w + per_row(delta), self.point, gated)
