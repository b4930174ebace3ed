"""ResNet-50 (He et al. 2016) up to its pooled features, with torchvision's tensor names.

The stride of a stage is that of the first block's 3x3 convolution, as torchvision and the networks that were trained
with it have it.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

UNITS = (3, 4, 6, 3)
"""Blocks of the four stages."""
EXPANSION = 4
"""A block's output has this many times its inner channels."""


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with batch norms around a shortcut, and a ReLU after the sum."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Module = nn.Identity()
        if in_channels != out or stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet50(nn.Module):
    """RGB images B x 3 x h x w to pooled features, B x 32 `width`; torchvision's last layer `fc` is left out."""

    def __init__(self, width: int = 64) -> None:
        """`width` is the stem's; the official network has 64, and 2,048 features."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        before, stages = width, []
        for index, count in enumerate(UNITS):
            inner = width << index
            blocks = []
            for number in range(count):
                blocks.append(Bottleneck(before, inner, 2 if index and not number else 1))
                before = EXPANSION * inner
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))
