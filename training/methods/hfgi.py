"""HFGI (Wang et al. 2022): the photo's residual, aligned to the edited image, scales and shifts one feature."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.methods.generator import TappedGenerator, first_conv_point
from training.methods.layers import condition, ir_units
from training.methods.protocol import FACES, Method, MethodInfo, encoder_view, per_row, shrink
from training.networks.e4e import E4EEncoder
from training.networks.ir import conv_bn_prelu


class ConsultationEncoder(nn.Module):
    """Ec: an aligned residual B x 3 x h x w to scale and shift, each B x C x H x W of the generator's feature."""

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.side = family.feature_resolution
        channels = family.feature_channels
        self.conv_layer1 = conv_bn_prelu(3, 32)
        self.conv_layer2 = ir_units((32, 48, 2), (48, 48, 1), (48, 48, 1))
        self.conv_layer3 = ir_units((48, 64, 2), (64, 64, 1), (64, 64, 1))
        self.condition_scale3 = condition(64, channels)
        self.condition_shift3 = condition(64, channels)

    def forward(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv_layer3(self.conv_layer2(self.conv_layer1(residual)))
        size = (self.side, self.side)
        return shrink(self.condition_scale3(x), size), shrink(self.condition_shift3(x), size)


class AdaptiveAlignment(nn.Module):
    """ADA: residual and edited image, together B x 6 x h x w, to the aligned residual B x 3 x h x w.

    A U-Net of IR units. Maps going up are resized bilinearly to the map they are joined with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_layer1 = conv_bn_prelu(6, 16)
        self.conv_layer2 = ir_units((16, 32, 2), (32, 32, 1), (32, 32, 1))
        self.conv_layer3 = ir_units((32, 48, 2), (48, 48, 1), (48, 48, 1))
        self.conv_layer4 = ir_units((48, 64, 2), (64, 64, 1), (64, 64, 1))
        self.dconv_layer1 = ir_units((112, 64, 1), (64, 32, 1), (32, 32, 1))
        self.dconv_layer2 = ir_units((64, 32, 1), (32, 16, 1), (16, 16, 1))
        self.dconv_layer3 = ir_units((32, 16, 1), (16, 3, 1), (3, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        f1 = self.conv_layer1(x)
        f2 = self.conv_layer2(f1)
        f3 = self.conv_layer3(f2)
        x = self.dconv_layer1(_joined(self.conv_layer4(f3), f3))
        x = self.dconv_layer2(_joined(x, f2))
        return self.dconv_layer3(_joined(x, f1))


def _joined(x: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False), skip], dim=1)


class HFGIInversion(NamedTuple):
    """Code and what it misses."""

    w: Tensor
    """B x N x D."""
    residual: Tensor
    """The photo less its e4e reconstruction, B x 3 x h x w at the encoders' size."""


class HFGI(Method):
    """x (1 + scale) + shift after the first convolution at the feature's resolution."""

    info = MethodInfo(
        key="hfgi",
        title="HFGI",
        paper="Wang et al. 2022, High-fidelity GAN inversion for image attribute editing",
        families=(FACES,),
        licence="none stated (the repository has no licence file: all rights reserved)",
        convention="all tensors; e4e + ADA + Ec + 2 generator passes",
    )

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.set_family(family)
        self.point = first_conv_point(family.feature_resolution)
        self.encoder = E4EEncoder(family)
        self.residue = ConsultationEncoder(family)
        self.grid_align = AdaptiveAlignment()
        self.decoder = TappedGenerator(family)

    def invert(self, image: Tensor) -> HFGIInversion:
        w = self.encoder(image) + self.latent_avg
        return HFGIInversion(w, image - encoder_view(self.decoder.render(w), self.family))

    def edit(self, inversion: HFGIInversion, delta: Tensor) -> Tensor:
        w = inversion.w + per_row(delta)
        edited = encoder_view(self.decoder.render(w), self.family)
        aligned = self.grid_align(torch.cat([inversion.residual, edited], dim=1))
        scale, shift = self.residue(aligned)
        return self.decoder.render(w, self.point, lambda x: x * (1 + scale) + shift)
