"""Residual units of the encoders' IResNet-50 backbones.

Three relatives share the layout BN, conv, activation, conv, BN plus a shortcut, with nothing after the sum: the IR
unit and its squeeze-excitation variant IR-SE (e4e, pSp) and the ArcFace unit (feature-style encoder). Tensor names
are those of the public checkpoints, so that these load without a key map.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor, nn

STAGE_UNITS = (3, 4, 14, 3)
"""Units in the four stages of a 50-layer IResNet (Deng et al. 2019)."""


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """3x3 convolution with padding 1: a side of n pixels becomes ceil(n / stride)."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=bias)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from all channel means (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(self.fc1(x.mean(dim=(2, 3), keepdim=True)).relu()).sigmoid()
        return x * gate


class IRUnit(nn.Module):
    """IR unit, with `squeeze` the IR-SE unit: B x I x H x W to B x O x H/stride x W/stride.

    Equal widths take a plain subsampling shortcut, which has no tensors; else it is a 1x1 convolution and BN.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, squeeze: bool = False) -> None:
        super().__init__()
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            conv3x3(in_channels, out_channels),
            nn.PReLU(out_channels),
            conv3x3(out_channels, out_channels, stride),
            nn.BatchNorm2d(out_channels),
            *([SqueezeExcitation(out_channels)] if squeeze else []),
        )
        self.shortcut_layer: nn.Module
        if in_channels != out_channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        else:
            self.shortcut_layer = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class ArcFaceUnit(nn.Module):
    """Unit of ArcFace's IResNet: B x I x H x W to B x O x H/stride x W/stride.

    Unlike `IRUnit` it normalises between convolution and PReLU and has a convolution shortcut whenever it strides.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels, stride)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


def stage(
    unit: Callable[[int, int, int], nn.Module], in_channels: int, out_channels: int, count: int, stride: int = 2
) -> list[nn.Module]:
    """One residual stage: its first unit changes width and resolution, the others keep both."""
    return [unit(in_channels, out_channels, stride), *(unit(out_channels, out_channels, 1) for _ in range(count - 1))]


def conv_bn_prelu(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution without bias, BN, PReLU; the resolution stays. From RGB it is the stem of an encoder."""
    return nn.Sequential(conv3x3(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.PReLU(out_channels))


class IRSE50(nn.Module):
    """Trunk of a 50-layer IResNet with squeeze-excitation, from an RGB image; the base of the encoders built on it."""

    def __init__(self, width: int) -> None:
        """`width` is the stem's; the four stages have 1, 2, 4 and 8 times as many channels."""
        super().__init__()
        self.input_layer = conv_bn_prelu(3, width)
        units: list[nn.Module] = []
        before = width
        for count, factor in zip(STAGE_UNITS, (1, 2, 4, 8), strict=True):
            units += stage(functools.partial(IRUnit, squeeze=True), before, factor * width, count)
            before = factor * width
        self.body = nn.Sequential(*units)

    def trunk(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """B x 3 x h x w to the outputs of stages two to four, at 1/4, 1/8 and 1/16 of the image's sides."""
        last = [sum(STAGE_UNITS[: n + 1]) - 1 for n in range(4)]
        x = self.input_layer(image)
        maps: list[Tensor] = []
        for i, unit in enumerate(self.body):
            x = unit(x)
            if i in last[1:]:
                maps.append(x)
        fine, middle, coarse = maps
        return fine, middle, coarse
