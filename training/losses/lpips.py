"""LPIPS (Zhang et al. 2018), version 0.1, with AlexNet or VGG16 features.

The weight file is safetensors: backbone tensors under torchvision's names (`features.N.weight`), the linear heads as
`lin{0..4}.model.1.weight`.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# torchvision's layer indices; a tap is the ReLU whose output is compared.
_VGG_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_VGG_POOL_BEFORE = (5, 10, 17, 24)
_VGG_TAPS = (2, 7, 14, 21, 28)
_ALEX_CONVS = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
_ALEX_POOL_BEFORE = (3, 6)
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """Perceptual distance of two images.

    Args:
        weights: the safetensors file; its tensors tell which backbone it holds.

    Raises:
        ValueError: if the file is not LPIPS weights.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: Path) -> None:
        super().__init__()
        try:
            tensors = load_file(weights)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{weights} cannot be read as LPIPS weights: {error}") from error
        if "features.28.weight" in tensors:
            self.backbone = "vgg16"
        elif "features.10.weight" in tensors and "lin4.model.1.weight" in tensors:
            self.backbone = "alexnet"
        else:
            raise ValueError(f"{weights} holds neither AlexNet nor VGG16 LPIPS weights")
        for name, tensor in tensors.items():
            self.register_buffer(name.replace(".", "_"), tensor.float(), persistent=False)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)

    def _conv(self, x: Tensor, index: int, stride: int = 1, padding: int = 1) -> Tensor:
        weight, bias = self.get_buffer(f"features_{index}_weight"), self.get_buffer(f"features_{index}_bias")
        return F.relu(F.conv2d(x, weight, bias, stride=stride, padding=padding))

    def features(self, image: Tensor) -> list[Tensor]:
        """The five compared feature maps of images B x 3 x H x W in [-1, 1], unit length per pixel."""
        x = (image - self.shift) / self.scale
        taps = []
        if self.backbone == "alexnet":
            for index, (stride, padding) in _ALEX_CONVS.items():
                if index in _ALEX_POOL_BEFORE:
                    x = F.max_pool2d(x, 3, 2)
                x = self._conv(x, index, stride, padding)
                taps.append(x)
        else:
            for index in _VGG_CONVS:
                if index in _VGG_POOL_BEFORE:
                    x = F.max_pool2d(x, 2)
                x = self._conv(x, index)
                if index in _VGG_TAPS:
                    taps.append(x)
        return [t.float() / (t.float().square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for t in taps]

    def distance(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """Distance per image (B) of two results of `features`."""
        total = torch.zeros(first[0].shape[0], device=first[0].device)
        for level, (a, b) in enumerate(zip(first, second, strict=True)):
            head = self.get_buffer(f"lin{level}_model_1_weight")
            total = total + ((a - b).square() * head).sum(dim=1).mean(dim=(1, 2))
        return total

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance per image (B) of two image batches B x 3 x H x W in [-1, 1]."""
        return self.distance(self.features(first), self.features(second))
