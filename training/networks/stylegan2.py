"""StyleGAN2 generator (Karras et al. 2020, config-f), splittable at the feature tensor.

Tensor names and shapes are those of the widely used PyTorch port of StyleGAN2 (`style.*`, `input.input`, `conv1`,
`convs.*`, `to_rgb1`, `to_rgbs.*`, `noises.*`), so that public checkpoints load without a key map.

Modulated convolutions are computed in the activation-scaled form: scale the input by the style, apply the static
weight, demodulate the output with rsqrt(sum(W^2 s^2)). It equals the per-sample-weight form up to rounding, needs no
grouped convolution, exports with a dynamic batch and is the form an engine builder can fuse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.latents import StyleGenerator

SQRT2 = math.sqrt(2.0)


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate: y = x (W lr / sqrt(in))^T + b lr."""

    def __init__(
        self, in_dim: int, out_dim: int, *, bias: float = 0.0, lr: float = 1.0, activate: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim) / lr)
        self.bias = nn.Parameter(torch.full((out_dim,), bias))
        self.scale = lr / math.sqrt(in_dim)
        self.lr = lr
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight * self.scale, self.bias * self.lr)
        return F.leaky_relu(y, 0.2) * SQRT2 if self.activate else y


class FusedLeakyReLU(nn.Module):
    """leaky_relu(x + bias, 0.2) * sqrt(2), bias per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias.view(1, -1, 1, 1), 0.2).mul_(SQRT2)


def fir_kernel(gain: float = 1.0) -> Tensor:
    """The low-pass kernel [1, 3, 3, 1], 4 x 4, whose sum is the gain."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64.0 * gain


class Blur(nn.Module):
    """FIR low-pass with the [1, 3, 3, 1] kernel; `gain` 4 restores the energy that zero insertion takes."""

    kernel: Tensor

    def __init__(self, pad: tuple[int, int], gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel(gain))
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        before, after = self.pad
        if before == after:
            return F.conv2d(x, self.kernel.expand(channels, 1, 4, 4), padding=before, groups=channels)
        x = F.pad(x, (before, after, before, after))
        return F.conv2d(x, self.kernel.expand(channels, 1, 4, 4), groups=channels)


class UpsampleRGB(nn.Module):
    """Doubles an RGB image: zero insertion, then the FIR kernel with gain 4."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel(gain=4.0))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        # A transposed convolution with stride 2 is zero insertion followed by the (symmetric) filter.
        return F.conv_transpose2d(x, self.kernel.expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


class ModulatedConv2d(nn.Module):
    """Style-modulated convolution with optional demodulation and optional factor-2 upsampling."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        style_dim: int,
        *,
        demodulate: bool = True,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, out_channels, in_channels, kernel, kernel))
        self.modulation = EqualLinear(style_dim, in_channels, bias=1.0)
        self.scale = 1.0 / math.sqrt(in_channels * kernel * kernel)
        self.demodulate = demodulate
        self.upsample = upsample
        self.padding = kernel // 2
        if upsample:
            self.blur = Blur((1, 1), gain=4.0)

    def forward(self, x: Tensor, style: Tensor, weight: Tensor | None = None) -> Tensor:
        """Args: x B x I x H x W; style B x I, the output of `modulation`; weight O x I x k x k in place of the layer's.

        Returns:
            B x O x H' x W'.
        """
        weight = (self.weight[0] if weight is None else weight) * self.scale
        x = x * style[:, :, None, None]
        if self.upsample:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        if self.demodulate:
            energy = F.linear(style.square(), weight.square().sum(dim=(2, 3)))
            x = x * torch.rsqrt(energy + 1e-8)[:, :, None, None]
        return x


class NoiseInjection(nn.Module):
    """x + weight * noise; the noise image is the same for every channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + self.weight * noise


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, *, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, style_dim, upsample=upsample)
        self.noise = NoiseInjection()
        self.activate = FusedLeakyReLU(out_channels)

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        return self.activate(self.noise(self.conv(x, style), noise))


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to RGB without demodulation, added to the upsampled image so far."""

    def __init__(self, in_channels: int, style_dim: int, *, upsample: bool = True) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if upsample:
            self.upsample = UpsampleRGB()

    def forward(self, x: Tensor, style: Tensor, skip: Tensor | None = None) -> Tensor:
        rgb = self.conv(x, style) + self.bias
        return rgb if skip is None else rgb + self.upsample(skip)


class PixelNorm(nn.Module):
    """Normalises each vector to unit mean square."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class ConstantInput(nn.Module):
    """The learned 4x4 input of the synthesis network."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels, 4, 4))

    def forward(self, batch: Tensor) -> Tensor:
        return self.input.expand(batch.shape[0], -1, -1, -1)


class Generator(StyleGenerator):
    """StyleGAN2 generator of a family; its layers are in StyleSpace's order."""

    def __init__(self, family: ModelFamily) -> None:
        super().__init__(family)
        d = family.style_dim
        self.style = nn.Sequential(
            PixelNorm(), *(EqualLinear(d, d, lr=0.01, activate=True) for _ in range(family.mapping_layers))
        )
        self.input = ConstantInput(family.channels(4))
        self.conv1 = StyledConv(family.channels(4), family.channels(4), d)
        self.to_rgb1 = ToRGB(family.channels(4), d, upsample=False)
        self.convs = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        self.noises = nn.Module()
        self.noises.register_buffer("noise_0", torch.randn(1, 1, 4, 4))
        for below, here in zip(family.resolutions[:-1], family.resolutions[1:], strict=True):
            for half in range(2):
                self.noises.register_buffer(f"noise_{len(self.convs) + 1}", torch.randn(1, 1, here, here))
                source = family.channels(below if half == 0 else here)
                self.convs.append(StyledConv(source, family.channels(here), d, upsample=half == 0))
            self.to_rgbs.append(ToRGB(family.channels(here), d))

    def _noise(self, index: int, like: Tensor, random: bool) -> Tensor:
        stored = self.noises.get_buffer(f"noise_{index}")
        if not random:
            return stored
        return torch.randn(like.shape[0], *stored.shape[1:], device=like.device, dtype=like.dtype)

    def lower(
        self,
        w_plus: Tensor,
        style_delta: Tensor | None = None,
        *,
        random_noise: bool = False,
        with_rgb: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Synthesis up to the feature tensor, G(w^{1:k}).

        Args:
            w_plus: B x N x D; only the first `family.feature_rows` rows are read.
            style_delta: B x sum(style_channels), or None.
            random_noise: fresh noise images instead of the stored ones.
            with_rgb: also accumulate the RGB skip.

        Returns:
            The feature B x C x H x W, and the RGB skip B x 3 x H x W that includes this resolution's ToRGB, or None.
        """
        delta = self._split(style_delta)
        x = self.input(w_plus)
        x = self.conv1(
            x, self._style(self.conv1.conv.modulation, 0, w_plus, delta), self._noise(0, w_plus, random_noise)
        )
        rgb = self.to_rgb1(x, self._style(self.to_rgb1.conv.modulation, 1, w_plus, delta)) if with_rgb else None
        for block in range(self._feature_blocks):
            x = self._block(block, x, w_plus, delta, random_noise)
            if with_rgb:
                rgb = self._to_rgb(block, x, w_plus, delta, rgb)
        return x, rgb

    def upper(
        self,
        feature: Tensor,
        w_plus: Tensor,
        rgb: Tensor | None = None,
        style_delta: Tensor | None = None,
        *,
        random_noise: bool = False,
    ) -> Tensor:
        """Synthesis from a feature tensor, G(f, w_r) of eq. 3.4 and 3.11.

        Args:
            feature: B x C x H x W, takes the place of the lower half's output.
            w_plus: B x N x D; rows from `family.feature_conv` on are read.
            rgb: the RGB skip of the lower half; None starts the image at the ToRGB of `feature`.
            style_delta: B x sum(style_channels), or None.
            random_noise: fresh noise images instead of the stored ones.

        Returns:
            Image B x 3 x S x S, nominally in [-1, 1], not clamped.
        """
        delta = self._split(style_delta)
        first = self._feature_blocks
        x = feature
        if rgb is None:
            rgb = self._to_rgb(first - 1, x, w_plus, delta, None)
        for block in range(first, len(self.to_rgbs)):
            x = self._block(block, x, w_plus, delta, random_noise)
            rgb = self._to_rgb(block, x, w_plus, delta, rgb)
        return rgb

    def upper_modules(self) -> list[nn.Module]:
        """The layers that `upper` runs: the feature's ToRGB and every convolution and ToRGB above it."""
        first = self._feature_blocks
        return [*self.convs[2 * first :], *self.to_rgbs[first - 1 :]]

    def _block(
        self, block: int, x: Tensor, w_plus: Tensor, delta: Sequence[Tensor] | None, random_noise: bool
    ) -> Tensor:
        for half in range(2):
            j = 2 * block + half
            conv = self.convs[j]
            style = self._style(conv.conv.modulation, 2 + 3 * block + half, w_plus, delta)
            x = conv(x, style, self._noise(j + 1, x, random_noise))
        return x

    def _to_rgb(
        self, block: int, x: Tensor, w_plus: Tensor, delta: Sequence[Tensor] | None, skip: Tensor | None
    ) -> Tensor:
        layer = self.to_rgbs[block]
        return layer(x, self._style(layer.conv.modulation, 4 + 3 * block, w_plus, delta), skip)
