"""The inverse Haar transform as one operator, in graphs that are exported.

A transposed convolution with constant signs computes what `training.networks.mobilestylegan.band_sums` does with
slices, eight sums, a concatenation and a shuffle, each of which passes over the largest maps of the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.mobilestylegan import ToImage, Up, band_sums

SIGNS = ((1.0, 1.0, 1.0, 1.0), (1.0, 1.0, -1.0, -1.0), (1.0, -1.0, 1.0, -1.0), (1.0, -1.0, -1.0, 1.0))
"""The signs of each band (low, vertical, horizontal, diagonal) in the four pixels, row by row."""


def transposed(x: Tensor) -> Tensor:
    """`band_sums` as a transposed convolution: B x 4C x H x W to B x C x 2H x 2W."""
    channels = x.shape[1] // 4
    kernel = torch.tensor(SIGNS, device=x.device, dtype=x.dtype).reshape(4, 1, 2, 2)
    return F.conv_transpose2d(x, kernel.repeat(channels, 1, 1, 1), stride=2, groups=channels)


@contextmanager
def one_operator(module: nn.Module) -> Iterator[None]:
    """Lets every inverse Haar transform in a module be one operator while it is traced."""
    places = [part for part in module.modules() if isinstance(part, Up | ToImage)]
    try:
        for part in places:
            part.haar = transposed
        yield
    finally:
        for part in places:
            part.haar = band_sums
