"""Edit-discrepancy fusion module, EDFM (eq. 3.8-3.9): writes the edit discrepancy into the enhanced feature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.attention import zero_
from training.networks.ir import conv3x3


def _conv(channels: int, separable: bool) -> nn.Module:
    """3x3 convolution of equal widths with bias, as a depthwise one and a 1x1 if `separable`."""
    if not separable:
        return conv3x3(channels, channels, bias=True)
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False), nn.Conv2d(channels, channels, 1)
    )


def _residual_branch(channels: int, separable: bool = False) -> nn.Sequential:
    """conv3x3, GELU, conv3x3; the last starts at zero, so the block around it starts as the identity."""
    last = _conv(channels, separable)
    zero_(last[1] if isinstance(last, nn.Sequential) else last)
    return nn.Sequential(_conv(channels, separable), nn.GELU(), last)


class Modulation(nn.Module):
    """gamma, beta and delta of eq. 3.8, each two 3x3 convolutions with a GELU between: 3 x B x C x H x W.

    With `shared_first` the three heads have their first convolution in common.
    """

    def __init__(self, channels: int, *, shared_first: bool, separable: bool = False) -> None:
        super().__init__()
        self.first = nn.ModuleList(_conv(channels, separable) for _ in range(1 if shared_first else 3))
        self.gamma = _conv(channels, separable)
        self.beta = _conv(channels, separable)
        self.delta = _conv(channels, separable)

    def forward(self, discrepancy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = [F.gelu(conv(discrepancy)) for conv in self.first]
        gamma, beta, delta = hidden * 3 if len(hidden) == 1 else hidden
        return self.gamma(gamma), self.beta(beta), self.delta(delta)


class ModulatedResidualBlock(nn.Module):
    """f + sigmoid(delta) * H(Norm(f) * (1 + tanh(gamma)) + beta), eq. 3.9."""

    def __init__(self, channels: int, *, shared_first: bool, norm: str, separable: bool = False) -> None:
        super().__init__()
        self.modulation = Modulation(channels, shared_first=shared_first, separable=separable)
        self.branch = _residual_branch(channels, separable)
        self.norm = norm

    def normalise(self, x: Tensor) -> Tensor:
        """Zero mean and unit variance without affine parameters: per image and channel, or per pixel over channels."""
        if self.norm == "instance":
            return F.instance_norm(x)
        return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)

    def forward(self, x: Tensor, discrepancy: Tensor) -> Tensor:
        """f_i and f_delta, each B x C x H x W, to f_(i+1)."""
        gamma, beta, delta = self.modulation(discrepancy)
        return x + delta.sigmoid() * self.branch(self.normalise(x) * (1 + gamma.tanh()) + beta)


LINEAR_GAIN = 4.0
"""Upper bound of the gate m of `linear_start`; it starts at half of it, which cancels the half that g_m starts at."""


class EditDiscrepancyFusion(nn.Module):
    """f'' from f' and f_delta by spatially adaptive modulation. At initialisation f'' = f'.

    With an inner width r the blocks run on a reduced feature and discrepancy, and what comes back is a correction:
    f'' = f' + back(blocks(reduce(f'), reduce_discrepancy(f_delta))). With `linear_start` another 1x1 convolution gives
    the gate m = 4 sigmoid(gate(...)) and f'' gains m * f_delta. `back` and `gate` start at zero.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        options, outer = family.editor, family.feature_channels
        channels = options.inner_width or outer
        self.inner, self.linear_start = bool(options.inner_width), options.linear_start
        if self.inner:
            self.reduce = nn.Conv2d(outer, channels, 1)
            self.reduce_discrepancy = nn.Conv2d(outer, channels, 1)
            self.back = nn.Conv2d(channels, outer, 1)
            zero_(self.back)
        if self.linear_start:
            self.gate = nn.Conv2d(channels, outer, 1)
            zero_(self.gate)
        self.blocks = nn.ModuleList(
            ModulatedResidualBlock(
                channels,
                shared_first=options.edfm_shared_first,
                norm=options.edfm_norm,
                separable=options.separable,
            )
            for _ in range(options.edfm_blocks)
        )

    def forward(self, feature: Tensor, discrepancy: Tensor) -> Tensor:
        """f' and f_delta, each B x C x H x W, to f'' B x C x H x W."""
        x, condition = feature, discrepancy
        if self.inner:
            x, condition = self.reduce(feature), self.reduce_discrepancy(discrepancy)
        for block in self.blocks:
            x = block(x, condition)
        if not self.inner:
            return x
        result = feature + self.back(x)
        return result + LINEAR_GAIN * self.gate(x).sigmoid() * discrepancy if self.linear_start else result


class ConcatenationFusion(nn.Module):
    """Ablation "w/o SPADE" (section 4.4): f' and f_delta are concatenated and go through a residual network.

    A 1x1 convolution brings 2C channels back to C; the half that reads f' starts as the identity, so that f'' = f'
    at initialisation wherever f_delta = 0. The paper gives no sizes; depth and width follow the full module.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        channels = family.feature_channels
        self.join = nn.Conv2d(2 * channels, channels, 1)
        with torch.no_grad():
            nn.init.dirac_(self.join.weight[:, :channels])
            nn.init.zeros_(self.join.bias)
        self.blocks = nn.ModuleList(_residual_branch(channels) for _ in range(family.editor.edfm_blocks))

    def forward(self, feature: Tensor, discrepancy: Tensor) -> Tensor:
        """f' and f_delta, each B x C x H x W, to f'' B x C x H x W."""
        x = self.join(torch.cat([feature, discrepancy], dim=1))
        for block in self.blocks:
            x = x + block(x)
        return x
