"""SDIC (Zhang et al. 2024): a discrepancy map between photo and reconstruction corrects both code and feature."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from engines.family import ModelFamily
from training.methods.generator import TappedGenerator, first_conv_point
from training.methods.layers import condition
from training.methods.protocol import CARS, FACES, Method, MethodInfo, encoder_view, per_row, shrink, squared
from training.methods.sdic_volume import BasicConv, DiscrepancyPrediction
from training.networks.e4e import E4EEncoder
from training.networks.ir import conv3x3, conv_bn_prelu


class RowAttention(nn.Module):
    """Attention over rows: the discrepancy B x I x D (D the style width) to a code's scale and offset, each B x N x D.

    The style width is the convolutions' length axis. `agg` is in the official files; nothing runs it.
    """

    def __init__(self, in_channels: int, rows: int) -> None:
        super().__init__()
        half = in_channels // 2
        self.sen = nn.Sequential(
            nn.Conv1d(in_channels, half, 1), nn.BatchNorm1d(half), nn.LeakyReLU(0.01), nn.Conv1d(half, rows, 1)
        )
        self.att = self._branch(rows)
        self.att2 = self._branch(rows)
        self.agg = nn.Sequential(nn.Conv1d(rows, rows, 3, padding=1), nn.BatchNorm1d(rows), nn.LeakyReLU(0.01))

    @staticmethod
    def _branch(rows: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv1d(rows, rows, 3, padding=1),
            nn.BatchNorm1d(rows),
            nn.LeakyReLU(0.01),
            nn.Conv1d(rows, rows, 1, bias=False),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.sen(x)
        return self.att(x), self.att2(x)


class SpatialAttentionFusion(nn.Module):
    """SAF: discrepancy B x 3 x h x h, feature B x C x H x W and code B x N x D to the corrected code and feature.

    `aff1`, `conv1` and `aff2` are in the official files; nothing runs them.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        channels, rows, self.side = family.feature_channels, family.w_rows, family.feature_resolution
        self.width = family.style_dim
        self.conv_layer1 = conv_bn_prelu(3, 32)
        self.semantic = nn.Sequential(
            BasicConv(32, 64, stride=2),
            conv3x3(64, 64),
            BasicConv(64, channels, stride=2),
            conv3x3(channels, channels),
        )
        self.att = nn.Sequential(BasicConv(channels, channels), conv3x3(channels, channels))
        self.aff1 = nn.Sequential(BasicConv(channels, channels), conv3x3(channels, channels))
        self.conv1 = conv3x3(channels, channels)
        self.aff2 = nn.Sequential(BasicConv(2 * channels, channels), conv3x3(channels, channels))
        self.condition_shift3 = condition(3, rows)
        self.aff1d = RowAttention(rows * self.side**2 // self.width, rows)

    def forward(self, discrepancy: Tensor, feature: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        context = self.semantic(self.conv_layer1(discrepancy))
        fused = self.att(context + feature).sigmoid() * context + feature
        rows = shrink(self.condition_shift3(discrepancy), (self.side, self.side))
        scale, offset = self.aff1d(rows.reshape(rows.shape[0], -1, self.width))
        return scale * w + w + offset, fused


class SDICInversion(NamedTuple):
    """The corrected code and features, after the first convolution at the feature's resolution."""

    w: Tensor
    """W+, B x N x D; edits are added to it."""
    feature: Tensor
    """F, B x C x H x W."""
    generator_feature: Tensor
    """The generator's own for the uncorrected code, B x C x H x W."""


class SDIC(Method):
    """F + G(W~) - G(w) enters the generator of the edited corrected code W~, all at that convolution's output.

    The reconstruction inserts F as it is: the edit by nothing differs from it by G(W+) - G(w).

    The published sizes are for square images. For cars the discrepancy has the encoders' size, and rows of zeros make
    it square before SAF, so that it lies where the generator shows the kept rows.
    """

    info = MethodInfo(
        key="sdic",
        title="SDIC",
        paper="Zhang et al. 2024, Spatial-contextual discrepancy information compensation for GAN inversion",
        families=(FACES, CARS),
        licence="none stated (the repository has no licence file: all rights reserved)",
        convention="all tensors; e4e + DIP + SAF + 2 generator passes",
    )
    reconstruct_reads = ("w", "feature")

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.set_family(family)
        self.point = first_conv_point(family.feature_resolution)
        self.encoder = E4EEncoder(family)
        self.DIP = DiscrepancyPrediction()
        self.SAF = SpatialAttentionFusion(family)
        self.decoder = TappedGenerator(family)

    def invert(self, image: Tensor) -> SDICInversion:
        w = self.encoder(image) + self.latent_avg
        reconstruction, feature = self.decoder(w, self.point)
        discrepancy = self.DIP(image, encoder_view(reconstruction, self.family))
        corrected, fused = self.SAF(squared(discrepancy), feature, w)
        return SDICInversion(corrected, fused, feature)

    def edit(self, inversion: SDICInversion, delta: Tensor) -> Tensor:
        def shifted(x: Tensor) -> Tensor:
            return inversion.feature - inversion.generator_feature + x

        return self.decoder.render(inversion.w + per_row(delta), self.point, shifted)

    def reconstruct(self, inversion: SDICInversion) -> Tensor:
        return self.decoder.render(inversion.w, self.point, lambda _: inversion.feature)
