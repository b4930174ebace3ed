"""e4e (Tov et al. 2021): the edited code alone drives the generator."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from engines.family import ModelFamily
from training.methods.generator import TappedGenerator
from training.methods.protocol import CARS, FACES, Method, MethodInfo, per_row
from training.networks.e4e import E4EEncoder


class E4EInversion(NamedTuple):
    """A code."""

    w: Tensor
    """B x N x D."""


class E4E(Method):
    """Encoder and generator; tensor names are those of the official files (`encoder.`, `decoder.`)."""

    info = MethodInfo(
        key="e4e",
        title="e4e",
        paper="Tov et al. 2021, Designing an encoder for StyleGAN image manipulation",
        families=(FACES, CARS),
        licence="MIT (2021, code); no separate statement for the weights",
        convention="all tensors of the 512-pixel model; encoder at 256x256 + 1 generator pass",
    )

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.set_family(family)
        self.encoder = E4EEncoder(family)
        self.decoder = TappedGenerator(family)

    def invert(self, image: Tensor) -> E4EInversion:
        return E4EInversion(self.encoder(image) + self.latent_avg)

    def edit(self, inversion: E4EInversion, delta: Tensor) -> Tensor:
        return self.decoder.render(inversion.w + per_row(delta))
