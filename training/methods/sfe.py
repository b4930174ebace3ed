"""StyleFeatureEditor, SFE (Bobkov et al. 2024): a network moves the feature by what an edit changes in G."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from engines.family import ModelFamily
from training.methods.generator import TappedGenerator, input_point
from training.methods.protocol import FACES, Method, MethodInfo, per_row, shrink
from training.networks.e4e import E4EEncoder
from training.networks.feature_style import FeatureStyleEncoder
from training.networks.ir import conv3x3

BLOCKS = 5


class FusionBlock(nn.Module):
    """x + BN(conv3x3(PReLU(BN(conv3x3(BN(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            conv3x3(channels, channels),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            conv3x3(channels, channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class FeatureFusion(nn.Module):
    """Two features, together B x 2C x H x W, to one: B x C x H x W. Both the fuser and the feature editor."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, channels, 1)
        self.body = nn.Sequential(*(FusionBlock(channels) for _ in range(BLOCKS)))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.conv(x))


class Inverter(nn.Module):
    """Backbone and fuser, under the names of the official files."""

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.fs_backbone = FeatureStyleEncoder(family)
        self.fuser = FeatureFusion(family.feature_channels)


class SFEInversion(NamedTuple):
    """Codes of both encoders, and features at `input_point`."""

    w: Tensor
    """The code of the feature-style encoder, B x N x D."""
    fused: Tensor
    """B x C x H x W."""
    w_e: Tensor
    """The code of the e4e encoder, B x N x D."""
    generator_feature: Tensor
    """The generator's own for w_e, B x C x H x W."""


class SFE(Method):
    """editor(cat(fused, G(w_e)[9] - G(w~_e)[9])) enters the generator of w~ in place of G(w~)[9].

    `encoder` is the feature editor, as in the official file of the whole method. The e4e encoder comes from e4e's own
    file; the mean code that is added to its codes too is that of the generator's file, as in the official runner.
    """

    info = MethodInfo(
        key="sfe",
        title="SFE",
        paper="Bobkov et al. 2024, The devil is in the details: StyleFeatureEditor",
        families=(FACES,),
        licence="MIT (2024, code); no separate statement for the weights, which include others'",
        convention="thop: called modules only, generator counted as nothing",
    )

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.set_family(family)
        self.point = input_point(family.feature_resolution)
        self.inverter = Inverter(family)
        self.encoder = FeatureFusion(family.feature_channels)
        self.e4e_encoder = E4EEncoder(family)
        self.decoder = TappedGenerator(family)

    @property
    def input_size(self) -> tuple[int, int]:
        return self.family.image_shape

    def invert(self, image: Tensor) -> SFEInversion:
        image = shrink(image, self.family.encoder_size)
        offsets, feature = self.inverter.fs_backbone(image)
        w = offsets + self.latent_avg
        fused = self.inverter.fuser(torch.cat([feature, self.decoder.feature(w, self.point)], dim=1))
        w_e = self.e4e_encoder(image) + self.latent_avg
        return SFEInversion(w, fused, w_e, self.decoder.feature(w_e, self.point))

    def edit(self, inversion: SFEInversion, delta: Tensor) -> Tensor:
        step = per_row(delta)
        # Original less edited: the sign the editor was trained with.
        change = inversion.generator_feature - self.decoder.feature(inversion.w_e + step, self.point)
        edited = self.encoder(torch.cat([inversion.fused, change], dim=1))
        return self.decoder.render(inversion.w + step, self.point, lambda _: edited)
