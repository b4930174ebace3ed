"""The resize of `engines.photo.resample` as layers that every runtime reads: convolutions and constant matrices."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.photo.resample import Filter, resampling, whole

CHANNELS = 3


class Resize(nn.Module):
    """B x 3 x h x w in [-1, 1] to B x 3 x h' x w', by one filter; what follows from sizes is constant."""

    def __init__(self, source: tuple[int, int], target: tuple[int, int], kind: Filter) -> None:
        """Args: heights and widths in pixels, and the filter."""
        super().__init__()
        # Pillow's order, see `engines.photo.resample.resize`.
        sides = [(3, source[1], target[1]), (2, source[0], target[0])]
        self.blocks = None
        if kind == "area" and all(whole(old, new) for _, old, new in sides):
            # One average pooling does both axes.
            self.blocks = (source[0] // target[0], source[1] // target[1])
        self.axes = nn.ModuleList(_axis(*side, kind) for side in sides if side[1] != side[2] and not self.blocks)
        self.clamps = kind == "bicubic"

    def forward(self, x: Tensor) -> Tensor:
        if self.blocks is not None:
            return x if self.blocks == (1, 1) else F.avg_pool2d(x, self.blocks)
        for axis in self.axes:
            x = axis(x).clamp(-1.0, 1.0) if self.clamps else axis(x)
        return x


def _axis(axis: int, source: int, target: int, kind: Filter) -> nn.Module:
    return _Strided(axis, source, target, kind) if whole(source, target) else _Product(axis, source, target, kind)


class _Product(nn.Module):
    """A resize by any factor, as a matrix product."""

    matrix: Tensor

    def __init__(self, axis: int, source: int, target: int, kind: Filter) -> None:
        super().__init__()
        self.axis = axis
        matrix = torch.from_numpy(resampling(source, target, kind)).float()
        self.register_buffer("matrix", matrix.T.contiguous() if axis == 3 else matrix, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix if self.axis == 3 else self.matrix @ x


class _Strided(nn.Module):
    """A whole factor: all rows of the matrix are one filter, moved, and a strided convolution computes a hundredth of
    the products. At the border, where zeros are added, what the filter lacks is made up for."""

    kernel: Tensor
    border: Tensor

    def __init__(self, axis: int, source: int, target: int, kind: Filter) -> None:
        super().__init__()
        factor = source // target
        # The middle one of nine pixels is far enough from the border for any of the filters.
        row = resampling(9 * factor, 9, kind)[4]
        (places,) = np.nonzero(row)
        taps, pad = row[places[0] : places[-1] + 1], int(4 * factor - places[0])
        padded = np.pad(np.ones(source), pad)
        sums = [taps @ padded[i * factor : i * factor + len(taps)] for i in range(target)]
        along = (1, len(taps)) if axis == 3 else (len(taps), 1)
        across = (target,) if axis == 3 else (target, 1)
        self.stride, self.padding = ((1, factor), (0, pad)) if axis == 3 else ((factor, 1), (pad, 0))
        kernel = torch.from_numpy(taps).float().reshape(1, 1, *along).repeat(CHANNELS, 1, 1, 1)
        self.register_buffer("kernel", kernel, persistent=False)
        self.register_buffer("border", torch.tensor(1 / np.array(sums)).float().reshape(across), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, stride=self.stride, padding=self.padding, groups=CHANNELS) * self.border
