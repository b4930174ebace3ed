"""Feature-style encoder, FS (Yao et al. 2022): a 16 x 16 feature that edits shift by the generator's own difference."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from engines.family import ModelFamily
from training.methods.generator import TappedGenerator, input_point
from training.methods.protocol import FACES, Method, MethodInfo, per_row
from training.networks.feature_style import FeatureStyleEncoder


def coarse_feature(family: ModelFamily) -> ModelFamily:
    """The family with the feature at 1/16 of the encoder's input, where FS and CLCAE have it (256 to 16)."""
    side = max(family.encoder_size) // 16
    return dataclasses.replace(family, name=f"{family.name}, {side}x{side} feature", feature_resolution=side)


class FSInversion(NamedTuple):
    """Code and features, each at `input_point`."""

    w: Tensor
    """B x N x D."""
    feature: Tensor
    """f of the encoder, B x C x h x w."""
    generator_feature: Tensor
    """The generator's own for w, B x C x h x w."""


class FS(Method):
    """f~ = f + G(w~)[5] - G(w)[5] enters the generator of w~ in place of G(w~)[5]."""

    info = MethodInfo(
        key="fs",
        title="FS",
        paper="Yao et al. 2022, A style-based GAN encoder for high fidelity reconstruction of images and videos",
        families=(FACES,),
        licence="InterDigital Limited Software Evaluation License: fundamental research only, no adaptation",
        convention="all tensors; encoder + 1 generator pass",
    )

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.set_family(family)
        coarse = coarse_feature(family)
        self.point = input_point(coarse.feature_resolution)
        self.encoder = FeatureStyleEncoder(coarse)
        self.decoder = TappedGenerator(family)

    @property
    def input_size(self) -> tuple[int, int]:
        return self.family.image_shape

    def invert(self, image: Tensor) -> FSInversion:
        while image.shape[3] >= 2 * self.family.encoder_size[1]:
            # Twice a mean of 2 x 2 pixels: not the same as one bilinear step of four.
            image = F.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)
        offsets, feature = self.encoder(image)
        w = offsets + self.latent_avg
        return FSInversion(w, feature, self.decoder.feature(w, self.point))

    def edit(self, inversion: FSInversion, delta: Tensor) -> Tensor:
        def shifted(x: Tensor) -> Tensor:
            return inversion.feature + x - inversion.generator_feature

        return self.decoder.render(inversion.w + per_row(delta), self.point, shifted)
