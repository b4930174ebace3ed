"""MobileFaceNet (Chen et al. 2018) with its batch norms folded: the trunk of the light e4e.

A face embedder's trunk knows faces before it has seen a code: a linear map from its features already explains half of
the variance of W, for which a trunk from nothing needs tens of thousands of images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

STAGES = ((64, 128, 64, 4), (64, 256, 128, 6), (128, 512, 128, 2))
"""Channels in, expanded by the strided unit, and out; and how many residual units follow, which expand to twice out."""


class Bottleneck(nn.Module):
    """1x1 convolution, depthwise 3x3 and 1x1, PReLUs between, around it a sum where the sizes stay."""

    def __init__(self, in_channels: int, expanded: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, expanded, 1),
            nn.PReLU(expanded),
            nn.Conv2d(expanded, expanded, 3, stride, 1, groups=expanded),
            nn.PReLU(expanded),
            nn.Conv2d(expanded, out_channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class MobileFaceNet(nn.Module):
    """Images B x 3 x h x w in [-1, 1] to the maps of the last two stages, B x 128 at 1/8 and 1/16 of the sides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, 1), nn.PReLU(64), nn.Conv2d(64, 64, 3, 1, 1, groups=64), nn.PReLU(64)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                Bottleneck(before, expanded, after, 2),
                *(Bottleneck(after, 2 * after, after, 1) for _ in range(count)),
            )
            for before, expanded, after, count in STAGES
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stages[0](self.stem(image))
        middle = self.stages[1](x)
        return middle, self.stages[2](middle)


def load_trunk(trunk: MobileFaceNet, path: Path) -> bool:
    """Gives a trunk the weights of an embedder's ONNX file, by the order of its convolutions and PReLUs.

    Returns:
        Whether the file's first layers are those of a MobileFaceNet; if not, the trunk is left as it was.
    """
    graph = onnx.load(path).graph
    arrays = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    theirs = [arrays[name] for node in graph.node if node.op_type in ("Conv", "PRelu") for name in node.input[1:]]
    ours = [
        parameter
        for module in trunk.modules()
        if isinstance(module, nn.Conv2d | nn.PReLU)
        for parameter in module.parameters(recurse=False)
    ]
    if len(theirs) < len(ours) or any(
        a.size != p.numel() or a.shape[0] != p.shape[0] for a, p in zip(theirs, ours, strict=False)
    ):
        return False
    with torch.no_grad():
        for array, parameter in zip(theirs, ours, strict=False):
            parameter.copy_(torch.from_numpy(np.array(array)).reshape(parameter.shape))
    return True
