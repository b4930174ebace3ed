"""A generator whose convolution weights differ by image, in a form that exports with a dynamic batch.

HyperStyle multiplies each convolution's weight by 1 + delta, another delta for each photo. A grouped convolution would
need the batch as its number of groups, which ONNX fixes; a sum of matrix products, one per row of the kernel, needs no
groups. Both compute the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.methods.generator import TappedGenerator
from training.networks.stylegan2 import StyledConv


def per_image_conv(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 convolution with padding 1: B x I x H x W and B x O x I x 3 x 3 to B x O x H x W."""
    height, width = x.shape[2:]
    kernel = _by_row(weight)
    padded = F.pad(x, (1, 1, 1, 1))
    wide = torch.cat([padded[..., b : b + width] for b in range(3)], dim=1)
    total = sum(kernel[:, :, a].flatten(2) @ wide[:, :, a : a + height].flatten(2) for a in range(3))
    return total.unflatten(2, (height, width))  # type: ignore[union-attr]


def per_image_conv_transpose(x: Tensor, weight: Tensor) -> Tensor:
    """3x3 transposed convolution with stride 2: B x I x H x W, B x O x I x 3 x 3 to B x O x (2H + 1) x (2W + 1).

    Output pixels of even and odd row and column are four images of their own, of 4, 2, 2 and 1 taps: no product with
    an inserted zero is computed.
    """
    height, width = x.shape[2] + 1, x.shape[3] + 1
    kernel = _by_row(weight)
    padded = F.pad(x, (1, 1, 1, 1))
    phases: dict[tuple[int, int], Tensor] = {}
    for column in range(2):
        # Pixel 2j + column takes tap b from input column j - b // 2.
        taps = range(column, 3, 2)
        wide = torch.cat([padded[..., 1 - b // 2 : 1 - b // 2 + width] for b in taps], dim=1)
        for row in range(2):
            total = sum(
                kernel[:, :, a, column::2].flatten(2) @ wide[:, :, 1 - a // 2 : 1 - a // 2 + height].flatten(2)
                for a in range(row, 3, 2)
            )
            phases[row, column] = total.unflatten(2, (height, width))  # type: ignore[union-attr]
    whole = F.pixel_shuffle(torch.stack([phases[key] for key in sorted(phases)], dim=2).flatten(1, 2), 2)
    return whole[:, :, :-1, :-1]


def _by_row(weight: Tensor) -> Tensor:
    """B x O x I x 3 x 3 to B x O x 3 x 3 x I: a row of taps, with the inputs of each, is one run of values."""
    return weight.permute(0, 1, 3, 4, 2)


class PerImageGenerator(TappedGenerator):
    """A `TappedGenerator` whose deltas are applied to the whole batch at once."""

    def _styled(self, index: int, layer: StyledConv, x: Tensor, w_plus: Tensor, delta: Tensor | None) -> Tensor:
        if delta is None:
            return super()._styled(index, layer, x, w_plus, delta)
        conv = layer.conv
        style = conv.modulation(w_plus[:, index])
        weight = conv.weight * conv.scale * (1 + delta)
        # By the largest style, per image, as engines do with shared weights: the demodulation takes it back.
        largest = style.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
        style = style / largest
        scaled = x * style[:, :, None, None]
        if conv.upsample:
            y = conv.blur(per_image_conv_transpose(scaled, weight))
        else:
            y = per_image_conv(scaled, weight)
        energy = (weight.square().sum(dim=(3, 4)) @ style.square()[:, :, None])[:, :, 0]
        y = y * torch.rsqrt(energy + 1e-8 / largest.square())[:, :, None, None]
        noise = self.noises.get_buffer(f"noise_{index}")
        return self._bounded(layer.activate(layer.noise(y, noise)))
