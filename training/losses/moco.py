"""Identity of what is no face: the features of a ResNet-50 that MoCo v2 trained (paper, section 3.3).

As pSp, e4e and SFE use it for cars (eladrich/pixel2style2pixel and omertov/encoder4editing, `criteria/moco_loss.py`):
the whole picture, resized to 224 x 224 pixels by taking the nearest ones, in [-1, 1] and without ImageNet's mean and
deviation, to the pooled features of unit length. The weights are a file: `edgedit import weights moco-v2` makes it.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from engines.errors import first_line
from training.losses.identity import Identity
from training.networks.resnet import ResNet50

SIZE = 224
_STEM = "conv1.weight"
_WIDEST = 64


class SceneIdentity(nn.Module):
    """Unit-length features of images B x 3 x h x w in [-1, 1]: B x 2048.

    Args:
        weights: safetensors of a ResNet-50 under torchvision's names; a last layer `fc` is left out.

    Raises:
        ValueError: if the file is not that.
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        try:
            tensors = {name: t.float() for name, t in load_file(weights).items() if not name.startswith("fc.")}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{weights} cannot be read as a ResNet-50: {first_line(error)}") from error
        if _STEM not in tensors or not 1 <= len(tensors[_STEM]) <= _WIDEST:
            raise ValueError(f"{weights} holds no ResNet-50 under torchvision's names: it has no {_STEM}")
        self.net = ResNet50(len(tensors[_STEM]))
        try:
            missing, unexpected = self.net.load_state_dict(tensors, strict=False)
        except RuntimeError as error:  # a tensor of another shape
            raise ValueError(f"{weights} is not a ResNet-50: {str(error).splitlines()[-1].strip()}") from error
        if lost := [name for name in missing if not name.endswith("num_batches_tracked")] + unexpected:
            raise ValueError(f"{weights} is not a ResNet-50: {lost[0]} is missing, or not one of its tensors")

    def forward(self, image: Tensor) -> Tensor:
        return F.normalize(self.net(F.interpolate(image, size=(SIZE, SIZE))).float(), dim=1)


def load_identity(weights: Path) -> Identity | SceneIdentity:
    """The network that says how alike two pictures are: of faces (ONNX) or of anything else (safetensors), frozen.

    Raises:
        ValueError: if the file is neither.
    """
    network = SceneIdentity(weights) if weights.suffix == ".safetensors" else Identity(weights)
    return network.eval().requires_grad_(False)
