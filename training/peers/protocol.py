"""What every method of Table 5 has in common: an inversion that depends on the photo alone, and edits that start there.

A method's inversion is a `NamedTuple` of tensors with the batch first, so that both operations can be exported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import CARS_512, FACES_1024, ModelFamily
from engines.photo.resample import Filter
from training.data import visible

FACES = FACES_1024.name
CARS = CARS_512.name


@dataclass(frozen=True, kw_only=True)
class PeerInfo:
    """Facts about one method."""

    key: str
    """As commands and files name it."""
    title: str
    """As Table 5 prints it."""
    paper: str
    families: tuple[str, ...]
    """Names of the families it exists for."""
    licence: str
    """Of the official weights, in words; none of them are part of this project."""
    convention: str
    """What the method's row in Table 5 counts, as far as its figures show."""


class Peer(nn.Module, ABC):
    """Inversion and editing of images B x 3 x h x w in [-1, 1].

    Rendered images are B x 3 x S x S, nominally in [-1, 1], neither clamped nor cut to `family.visible_rows`.

    `latent_avg` is the mean of W, zero until weights are loaded: N x D, because the official files repeat it for each
    row; a method whose encoder needs the vector itself has 1 x D.
    """

    info: ClassVar[PeerInfo]
    resize: ClassVar[Filter] = "bilinear"
    """How the official code brings a photo to `input_size`: most by torchvision's `Resize` of a PIL image, which is
    bilinear and antialiased. What is done inside the networks is not meant."""
    family: ModelFamily
    latent_avg: Tensor

    def set_family(self, family: ModelFamily, *, mean_rows: int | None = None) -> None:
        """Stores the family and a zero `latent_avg` of `mean_rows` rows (N if left out)."""
        self.family = family
        rows = family.w_rows if mean_rows is None else mean_rows
        self.register_buffer("latent_avg", torch.zeros(rows, family.style_dim))

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the image that the method's own pipeline is given, in pixels."""
        return self.family.encoder_size

    @abstractmethod
    def invert(self, image: Tensor) -> Any:
        """Everything of an edit that depends on the photo alone: a NamedTuple of tensors.

        Args:
            image: B x 3 x h x w, h x w = `input_size`; methods that shrink it themselves also take it shrunk.
        """

    @abstractmethod
    def edit(self, inversion: Any, delta: Tensor) -> Tensor:
        """The edited image B x 3 x S x S.

        Args:
            inversion: from `invert`.
            delta: strength * direction; B x D in W, the same for every row, or B x N x D in W+.
        """

    def reconstruct(self, inversion: Any) -> Tensor:
        """The photo's reconstruction B x 3 x S x S: the edit by nothing, if the method has no other."""
        code = next(tensor for tensor in inversion if isinstance(tensor, Tensor))
        return self.edit(inversion, code.new_zeros(1, self.family.style_dim))


def per_row(delta: Tensor) -> Tensor:
    """B x D or B x N x D to what may be added to a code B x N x D."""
    return delta[:, None] if delta.dim() == 2 else delta


def shrink(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear without antialiasing, pixel centres aligned: B x C x h x w to B x C x `size`."""
    if tuple(image.shape[2:]) == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def seen(image: Tensor, family: ModelFamily) -> Tensor:
    """A rendered image as the encoders take photos: clamped to [-1, 1], cut to the visible rows, shrunk."""
    return shrink(visible(image.clamp(-1.0, 1.0), family), family.encoder_size)


def squared(x: Tensor) -> Tensor:
    """Zero rows above and below until the map is as high as it is wide.

    A 48 x 64 map of a car then lies where the generator's 64 x 64 feature shows the kept image rows.
    """
    margin = (x.shape[3] - x.shape[2]) // 2
    return F.pad(x, (0, 0, margin, margin)) if margin else x
