"""MobileStyleGAN's mapping and synthesis networks (Belousov 2021, arXiv 2104.04767), a light student of StyleGAN2.

Convolutions are depthwise-separable, resolution doubles by an inverse Haar transform, demodulation is folded into the
weights and noise images are stored, so that every convolution has constant weights. The image leaves as the four
sub-bands of its own Haar transform, rendered at half the resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.latents import StyleGenerator
from training.networks.stylegan2 import ConstantInput, PixelNorm

SQRT2 = math.sqrt(2.0)
SLOPE = 0.2
"""Slope of every leaky ReLU for negative values."""


def grouped(channels: int) -> Tensor:
    """The order of sub-band channels in which each channel's four bands lie side by side: low, then its details."""
    channel = torch.arange(channels // 4)[:, None]
    return torch.cat([channel, channels // 4 + 3 * channel + torch.arange(3)], dim=1).flatten()


def inverse_haar(x: Tensor) -> Tensor:
    """Sub-bands B x 4C x H x W to B x C x 2H x 2W, each output pixel the halved sum of the four bands, by sign.

    The first C channels are the low-pass band; the others are its three details per channel: vertical, horizontal,
    diagonal.
    """
    return band_sums(0.5 * x.index_select(1, grouped(x.shape[1]).to(x.device)))


def band_sums(x: Tensor) -> Tensor:
    """`inverse_haar` of bands in `grouped` order, without the half, which a scale of x can take over."""
    low, vertical, horizontal, diagonal = x.unflatten(1, (-1, 4)).unbind(2)
    even, odd = low + vertical, low - vertical
    even_detail, odd_detail = horizontal + diagonal, horizontal - diagonal
    pixels = (even + even_detail, even - even_detail, odd + odd_detail, odd - odd_detail)
    return F.pixel_shuffle(torch.stack(pixels, dim=2).flatten(1, 2), 2)


class Mapping(nn.Module):
    """Z to W, B x D to B x D: pixel norm, then layers sqrt(2) * leaky_relu(W x + b) with plain weights."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.norm = PixelNorm()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm(z)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE) * SQRT2
        return x


class StyledConv(nn.Module):
    """Style-scaled convolution, stored noise, bias and leaky ReLU: B x I x H x W to B x O x H x W.

    With `separable` the convolution is a depthwise 3x3 and a 1x1, else one dense 3x3; demodulation is in its weights.
    """

    noise: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, style_dim: int, side: int, *, separable: bool = True
    ) -> None:
        super().__init__()
        self.modulation = nn.Linear(style_dim, in_channels)
        self.scale = 1.0 / math.sqrt(9 * in_channels)
        self.depthwise = nn.Parameter(torch.randn(in_channels, 1, 3, 3)) if separable else None
        kernel = 1 if separable else 3
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise", torch.zeros(1, 1, side, side))
        nn.init.ones_(self.modulation.bias)

    def forward(self, x: Tensor, style: Tensor | None, noise: Tensor, order: Tensor | None = None) -> Tensor:
        """Args: x, and its style, or None if x is scaled by it already; the noise; the order of the outputs' channels,
        by default their own."""
        if style is not None:
            x = x * (style * self.scale)[:, :, None, None]
        if self.depthwise is not None:
            x = F.conv2d(x, self.depthwise, padding=1, groups=x.shape[1])
        weight, bias = self.weight, self.bias
        if order is not None:
            weight, bias = weight.index_select(0, order), bias.index_select(0, order)
        x = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return F.leaky_relu(x + noise, SLOPE)


class Up(nn.Module):
    """Style-scaled inverse Haar transform: B x 4C x H x W, bands in `grouped` order, to B x C x 2H x 2W.

    `haar` computes `band_sums`; an export may put another form of it there.
    """

    order: Tensor
    channel: Tensor

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(style_dim, channels)
        self.haar = band_sums
        nn.init.ones_(self.modulation.bias)
        self.register_buffer("order", grouped(channels), persistent=False)
        # That of each band in this order. Indices export to one Gather each.
        self.register_buffer("channel", torch.arange(channels) // 4, persistent=False)

    def forward(self, x: Tensor, style: Tensor, after: Tensor) -> Tensor:
        """Args: x; its style B x 4C, in the layer's own order; scales B x C of what comes out, with the transform's
        half among them, which cost a pass over the smaller x only."""
        bands = style.index_select(1, self.order) * after.index_select(1, self.channel)
        return self.haar(x * bands[:, :, None, None])


class Block(nn.Module):
    """One doubling of the resolution and two styled convolutions, of which the first brings the channels back."""

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, side: int) -> None:
        """`side` is the block's output resolution in pixels."""
        super().__init__()
        self.up = Up(in_channels, style_dim)
        self.conv1 = StyledConv(in_channels // 4, out_channels, style_dim, side)
        self.conv2 = StyledConv(out_channels, out_channels, style_dim, side)


class ToImage(nn.Module):
    """Style-scaled 1x1 convolution to the image's Haar sub-bands, and their inverse transform.

    B x I x S/2 x S/2 to B x 3 x S x S.
    """

    order: Tensor

    def __init__(self, in_channels: int, style_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(style_dim, in_channels)
        self.scale = 1.0 / math.sqrt(in_channels)
        self.weight = nn.Parameter(torch.randn(12, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(12))
        self.haar = band_sums
        nn.init.ones_(self.modulation.bias)
        self.register_buffer("order", grouped(12), persistent=False)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        # The transform's half is in the style, and in the bias.
        x = x * (style * (0.5 * self.scale))[:, :, None, None]
        weight, bias = self.weight.index_select(0, self.order), 0.5 * self.bias.index_select(0, self.order)
        return self.haar(F.conv2d(x, weight, bias))


class MobileGenerator(StyleGenerator):
    """MobileStyleGAN generator of a family, with the interface of `training.networks.stylegan2.Generator`.

    There is no image before the last layer, so `lower` returns no RGB skip and `upper` takes none.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__(family)
        d = family.style_dim
        self.style = Mapping(d, family.mapping_layers)
        self.input = ConstantInput(family.channels(4))
        self.conv1 = StyledConv(family.channels(4), family.channels(4), d, 4, separable=False)
        sides = family.synthesis_resolutions
        self.blocks = nn.ModuleList(
            Block(family.channels(below), family.channels(here), d, here) for below, here in pairwise(sides)
        )
        self.to_image = ToImage(family.channels(sides[-1]), d)

    def lower(
        self,
        w_plus: Tensor,
        style_delta: Tensor | None = None,
        *,
        random_noise: bool = False,
        with_rgb: bool = True,
    ) -> tuple[Tensor, None]:
        """Synthesis up to the feature tensor, G(w^{1:k}).

        Args:
            w_plus: B x N x D; only the first `family.feature_rows` rows are read.
            style_delta: B x sum(style_channels), or None.
            random_noise: must be False: the noise's strength is folded into the stored images.
            with_rgb: has no effect.

        Returns:
            The feature B x C x H x W, and None: there is no RGB skip.
        """
        _refuse_noise(random_noise)
        delta = self._split(style_delta)
        style, below = self._style(self.conv1.modulation, 0, w_plus, delta), range(self._feature_blocks)
        # The style gives the input its batch.
        x = self.conv1(self.input.input, style, self.conv1.noise, self._orders(below)[0])
        return self._blocks(below, x, w_plus, delta, None), None

    def upper(
        self,
        feature: Tensor,
        w_plus: Tensor,
        rgb: Tensor | None = None,
        style_delta: Tensor | None = None,
        *,
        random_noise: bool = False,
        origin: Tensor | None = None,
    ) -> Tensor:
        """Synthesis from a feature tensor, G(f, w_r) of eq. 3.4 and 3.11.

        Args:
            feature: B x C x H x W, takes the place of the lower half's output; or a window of one.
            w_plus: B x N x D; rows from `family.feature_conv` on are read.
            rgb: must be None.
            style_delta: B x sum(style_channels), or None.
            random_noise: must be False.
            origin: B x 2, row and column of each feature window's first cell, for a feature that is a window. Pixels
                within two cells of a window's edge differ from the whole picture's.

        Returns:
            Image B x 3 x S x S, nominally in [-1, 1], not clamped; of a window S/H pixels for each of its cells.
        """
        _refuse_noise(random_noise)
        delta = self._split(style_delta)
        above = range(self._feature_blocks, len(self.blocks))
        order = self._orders(above)[0]
        x = feature if order is None else feature.index_select(1, order)
        x = self._blocks(above, x, w_plus, delta, origin)
        last = len(self.family.style_channels) - 1
        return self.to_image(x, self._style(self.to_image.modulation, last, w_plus, delta))

    def upper_modules(self) -> list[nn.Module]:
        """The layers that `upper` runs."""
        return [*self.blocks[self._feature_blocks :], self.to_image]

    def _orders(self, indices: Sequence[int]) -> list[Tensor | None]:
        """The orders of channels in which these blocks take their maps, and None for what the last one gives.

        In the weights of the convolution before a block, its order costs nothing.
        """
        return [*(self.blocks[index].get_buffer("up.order") for index in indices), None]

    def _blocks(
        self,
        indices: Sequence[int],
        x: Tensor,
        w_plus: Tensor,
        delta: Sequence[Tensor] | None,
        origin: Tensor | None,
    ) -> Tensor:
        for index, order in zip(indices, self._orders(indices)[1:], strict=True):
            block, first = self.blocks[index], 3 * index + 1
            after = self._style(block.conv1.modulation, first + 1, w_plus, delta) * (0.5 * block.conv1.scale)
            x = block.up(x, self._style(block.up.modulation, first, w_plus, delta), after)
            noises = [conv.noise for conv in (block.conv1, block.conv2)]
            if origin is not None:
                noises = [_windows(noise, origin, x.shape[-1], self.family) for noise in noises]
            x = block.conv1(x, None, noises[0])
            x = block.conv2(x, self._style(block.conv2.modulation, first + 2, w_plus, delta), noises[1], order)
        return x


def _refuse_noise(random_noise: bool) -> None:
    if random_noise:
        raise ValueError("MobileStyleGAN's noise is stored with its strength: there is no fresh noise to draw")


def _windows(noise: Tensor, origin: Tensor, side: int, family: ModelFamily) -> Tensor:
    """The parts of a noise image 1 x 1 x r x r that lie above feature windows: B x 1 x side x side."""
    factor = noise.shape[-1] // family.feature_resolution
    parts = [noise[:, :, y : y + side, x : x + side] for y, x in (origin * factor).tolist()]
    return torch.cat(parts)
