"""DIP, the part of SDIC that compares photo and reconstruction: a small stereo-matching network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.methods.layers import ir_units
from training.networks.ir import conv3x3


class BasicConv(nn.Module):
    """Convolution without bias, BN, leaky ReLU (0.01); 2D or 3D, transposed if `up`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, ...] = 3,
        stride: int = 1,
        padding: int | tuple[int, ...] = 1,
        *,
        volume: bool = False,
        up: bool = False,
        activate: bool = True,
    ) -> None:
        """`activate` off leaves the convolution alone; the norm's tensors exist all the same."""
        super().__init__()
        kinds = (nn.ConvTranspose2d, nn.ConvTranspose3d) if up else (nn.Conv2d, nn.Conv3d)
        self.conv = kinds[volume](in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = (nn.BatchNorm3d if volume else nn.BatchNorm2d)(out_channels)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.leaky_relu(self.bn(x), 0.01) if self.activate else x


def _doubled(in_channels: int, out_channels: int, *, volume: bool = False, activate: bool = True) -> BasicConv:
    return BasicConv(in_channels, out_channels, 4, 2, 1, volume=volume, up=True, activate=activate)


class Feature(nn.Module):
    """Image to four maps at 1, 1/2, 1/4 and 1/8 of its sides, with 16, 32, 96 and 160 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.fe1 = BasicConv(3, 16)
        self.fe2 = BasicConv(16, 24, stride=2)
        self.fe3 = BasicConv(24, 32)
        self.fe4 = BasicConv(32, 96, stride=2)
        self.fe5 = BasicConv(96, 160, stride=2)

    def forward(self, image: Tensor) -> list[Tensor]:
        x1 = self.fe1(image)
        x2 = self.fe3(self.fe2(x1))
        x4 = self.fe4(x2)
        return [x1, x2, x4, self.fe5(x4)]


class UpJoin(nn.Module):
    """Doubles a map, joins it with a skip (the doubled one first) and mixes both."""

    def __init__(self, in_channels: int, out_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.conv1 = _doubled(in_channels, out_channels)
        self.conv2 = BasicConv(out_channels + skip_channels, out_channels + skip_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.conv1(x)
        if x.shape[2:] != skip.shape[2:]:
            x = F.interpolate(x, size=skip.shape[2:], mode="nearest")
        return self.conv2(torch.cat([x, skip], dim=1))


class FeatureUp(nn.Module):
    """The maps of `Feature` to richer ones, 32, 64, 192 and 160 channels, at the same sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.deconv8_4 = UpJoin(160, 96, 96)
        self.deconv4_2 = UpJoin(192, 32, 32)
        self.deconv2_1 = UpJoin(64, 16, 16)
        self.conv4 = BasicConv(32, 32)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x1, x2, x4, x8 = maps
        x4 = self.deconv8_4(x8, x4)
        x2 = self.deconv4_2(x4, x2)
        return [self.conv4(self.deconv2_1(x2, x1)), x2, x4, x8]


class ContextFusion(nn.Module):
    """Adds image context to a cost volume B x C x D x h x w, where a gate lets it."""

    def __init__(self, channels: int, image_channels: int) -> None:
        super().__init__()
        half = image_channels // 2
        self.semantic = nn.Sequential(BasicConv(image_channels, half, 1, 1, 0), nn.Conv2d(half, channels, 1))
        self.att = nn.Sequential(self._plane(channels), nn.Conv3d(channels, channels, 1, bias=False))
        self.agg = self._plane(channels)

    @staticmethod
    def _plane(channels: int) -> BasicConv:
        return BasicConv(channels, channels, (1, 5, 5), 1, (0, 2, 2), volume=True)

    def forward(self, volume: Tensor, image: Tensor) -> Tensor:
        context = self.semantic(image).unsqueeze(2)
        return self.agg(self.att(context + volume).sigmoid() * context + volume)


class Hourglass(nn.Module):
    """Cost volume B x C x D x h x w to B x 1 x D x h x w, guided by maps at 1/2, 1/4 and 1/8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c2, c4, c6 = 2 * channels, 4 * channels, 6 * channels
        self.conv1 = self._down(channels, c2)
        self.conv2 = self._down(c2, c4)
        self.conv3 = self._down(c4, c6)
        self.conv3_up = _doubled(c6, c4, volume=True)
        self.conv2_up = _doubled(c4, c2, volume=True)
        self.conv1_up = _doubled(c2, 1, volume=True, activate=False)
        self.agg_0 = self._mix(c4)
        self.agg_1 = self._mix(c2)
        self.CGF_32 = ContextFusion(c6, 160)
        self.CGF_16 = ContextFusion(c4, 192)
        self.CGF_8 = ContextFusion(c2, 64)

    @staticmethod
    def _down(in_channels: int, out_channels: int) -> nn.Sequential:
        return nn.Sequential(
            BasicConv(in_channels, out_channels, stride=2, volume=True),
            BasicConv(out_channels, out_channels, volume=True),
        )

    @staticmethod
    def _mix(channels: int) -> nn.Sequential:
        return nn.Sequential(
            BasicConv(2 * channels, channels, 1, 1, 0, volume=True),
            BasicConv(channels, channels, volume=True),
            BasicConv(channels, channels, volume=True),
        )

    def forward(self, volume: Tensor, maps: list[Tensor]) -> Tensor:
        v1 = self.conv1(volume)
        v2 = self.conv2(v1)
        v3 = self.CGF_32(self.conv3(v2), maps[3])
        v2 = self.CGF_16(self.agg_0(torch.cat([self.conv3_up(v3), v2], dim=1)), maps[2])
        v1 = self.CGF_8(self.agg_1(torch.cat([self.conv2_up(v2), v1], dim=1)), maps[1])
        return self.conv1_up(v1)


class DiscrepancyPrediction(nn.Module):
    """DIP: photo and reconstruction, each B x 3 x h x w, to a discrepancy map B x 3 x h x w, unbounded.

    The parts from `stem_2` to `agg` are in the official files; nothing runs them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.feature1 = Feature()
        self.feature2 = Feature()
        self.feature_up = FeatureUp()
        self.stem_2 = _conv_relu(BasicConv(3, 32, stride=2), 32)
        self.stem_4 = _conv_relu(BasicConv(32, 48), 48)
        self.spx = nn.Sequential(nn.ConvTranspose2d(64, 9, 4, 2, 1))
        self.spx_2 = UpJoin(32, 32, 32)
        self.spx_4 = _conv_relu(BasicConv(96, 32), 32)
        self.conv = BasicConv(32, 48)
        self.desc = nn.Conv2d(48, 24, 1)
        self.semantic = nn.Sequential(BasicConv(96, 32), nn.Conv2d(32, 8, 1, bias=False))
        self.agg = BasicConv(8, 8, (1, 5, 5), 1, (0, 2, 2), volume=True)
        self.corr_stem = BasicConv(1, 8, volume=True)
        self.hourglass_fusion = Hourglass(8)
        self.rgb1 = _conv_relu(BasicConv(48, 16), 16)
        self.rgb = ir_units((16, 3, 1), (3, 3, 1), (3, 3, 1))

    def forward(self, photo: Tensor, reconstruction: Tensor) -> Tensor:
        left = self.feature_up(self.feature1(photo))
        right = self.feature_up(self.feature2(reconstruction))
        described = torch.cat([self.desc(self.conv(maps[0])) for maps in (left, right)], dim=1)
        volume = self.hourglass_fusion(self.corr_stem(described.unsqueeze(1)), left)
        return self.rgb(self.rgb1(volume.squeeze(1)))


def _conv_relu(first: BasicConv, channels: int) -> nn.Sequential:
    return nn.Sequential(first, conv3x3(channels, channels), nn.BatchNorm2d(channels), nn.ReLU())
