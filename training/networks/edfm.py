"""Edit-discrepancy fusion module, EDFM (eq. 3.8-3.9): writes the edit discrepancy into the enhanced feature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.attention import zero_
from training.networks.ir import conv3x3


def _residual_branch(channels: int) -> nn.Sequential:
    """conv3x3, GELU, conv3x3; the last starts at zero, so the block around it starts as the identity."""
    branch = nn.Sequential(conv3x3(channels, channels, bias=True), nn.GELU(), conv3x3(channels, channels, bias=True))
    zero_(branch[2])
    return branch


class Modulation(nn.Module):
    """gamma, beta and delta of eq. 3.8, each two 3x3 convolutions with a GELU between: 3 x B x C x H x W.

    With `shared_first` the three heads have their first convolution in common.
    """

    def __init__(self, channels: int, *, shared_first: bool) -> None:
        super().__init__()
        self.first = nn.ModuleList(conv3x3(channels, channels, bias=True) for _ in range(1 if shared_first else 3))
        self.gamma = conv3x3(channels, channels, bias=True)
        self.beta = conv3x3(channels, channels, bias=True)
        self.delta = conv3x3(channels, channels, bias=True)

    def forward(self, discrepancy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = [F.gelu(conv(discrepancy)) for conv in self.first]
        gamma, beta, delta = hidden * 3 if len(hidden) == 1 else hidden
        return self.gamma(gamma), self.beta(beta), self.delta(delta)


class ModulatedResidualBlock(nn.Module):
    """f + sigmoid(delta) * H(Norm(f) * (1 + tanh(gamma)) + beta), eq. 3.9."""

    def __init__(self, channels: int, *, shared_first: bool, norm: str) -> None:
        super().__init__()
        self.modulation = Modulation(channels, shared_first=shared_first)
        self.branch = _residual_branch(channels)
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


class EditDiscrepancyFusion(nn.Module):
    """f'' from f' and f_delta by spatially adaptive modulation. At initialisation f'' = f'."""

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        options = family.editor
        self.blocks = nn.ModuleList(
            ModulatedResidualBlock(
                family.feature_channels, shared_first=options.edfm_shared_first, norm=options.edfm_norm
            )
            for _ in range(options.edfm_blocks)
        )

    def forward(self, feature: Tensor, discrepancy: Tensor) -> Tensor:
        """f' and f_delta, each B x C x H x W, to f'' B x C x H x W."""
        for block in self.blocks:
            feature = block(feature, discrepancy)
        return feature


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
