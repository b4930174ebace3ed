"""The image losses shared by the encoder stages: pixel, perceptual and identity terms (eq. 3.12-3.14, 3.18-3.20)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from training.losses.identity import face_crop
from training.losses.lpips import LPIPS
from training.losses.moco import load_identity


@dataclass(frozen=True, kw_only=True)
class LossFiles:
    """Weight files of the loss networks; None where what is run needs none."""

    lpips: Path | None = None
    """LPIPS weights, AlexNet or VGG16 (see `training.losses.lpips`)."""
    identity: Path | None = None
    """Face embedder, ONNX (see `training.losses.identity`), or ResNet-50, safetensors (see `training.losses.moco`)."""

    def require(self, name: Literal["lpips", "identity"]) -> Path:
        """One of the files.

        Raises:
            ValueError: if it was not given.
        """
        path: Path | None = getattr(self, name)
        if path is None:
            raise ValueError(f"this needs --{name}, the weights of a loss network")
        return path


FEATURES_CROP = (0.36, 0.26, 0.48)
"""Eyes, nose and mouth of an FFHQ-aligned image (top, left, side as fractions)."""


@dataclass(frozen=True, kw_only=True)
class ImageWeights:
    """Weights of the terms; the defaults are the paper's (section 4.1)."""

    l2: float = 1.0
    l2_root: bool = False
    """Take each image's root mean square, the norm as eq. 3.12 writes it, instead of the mean square that the encoders
    the paper builds on use. Its gradient does not fade as the error shrinks, which suits short runs."""
    lpips: float = 0.8
    identity: float = 0.1
    face: float = 0.0
    """Weight of the pixel and perceptual terms taken once more on eyes, nose and mouth alone, enlarged to the image's
    size. On small images they are a dozen pixels each, and without this an encoder learns hair and background first."""
    identity_images: int = 0
    """Images per call that enter the identity term, the first ones; 0: all. The embedder is the dearest network of a
    small run, and its gradient is an average."""


class ImageLoss(nn.Module):
    """Weighted sum of the three terms between generated and target images.

    The pixel term is the mean square, or its root (see `ImageWeights.l2_root`).
    """

    def __init__(self, files: LossFiles, weights: ImageWeights) -> None:
        super().__init__()
        self.weights = weights
        self.lpips = LPIPS(files.require("lpips"))
        self.identity = load_identity(files.require("identity"))
        self.requires_grad_(False)
        self.eval()

    def _distance(self, output: Tensor, target: Tensor) -> Tensor:
        square = (output.float() - target).square().mean(dim=(1, 2, 3))
        return (square + 1e-8).sqrt().mean() if self.weights.l2_root else square.mean()

    def forward(self, output: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Args: output and target B x 3 x h x w in [-1, 1]. Returns the weighted sum and the unweighted terms."""
        w = self.weights
        count = w.identity_images or len(output)
        terms = {
            "l2": self._distance(output, target),
            "lpips": self.lpips(output, target).mean(),
            "identity": 1.0 - (self.identity(output[:count]) * self.identity(target[:count])).sum(dim=1).mean(),
        }
        total = w.l2 * terms["l2"] + w.lpips * terms["lpips"] + w.identity * terms["identity"]
        if w.face:
            face, wanted = (face_crop(image.float(), image.shape[-1], FEATURES_CROP) for image in (output, target))
            terms["face"] = w.l2 * self._distance(face, wanted) + w.lpips * self.lpips(face, wanted).mean()
            total = total + w.face * terms["face"]
        return total, {name: term.detach() for name, term in terms.items()}
