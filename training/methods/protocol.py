"""The common interface of all methods: an inversion that depends on the photo alone, and edits that start there.

A method's inversion is a `NamedTuple` of tensors with the batch first, so that both operations can be exported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import CARS_512, FACES_1024, ModelFamily
from engines.photo.resample import Filter
from training.data import visible

FACES = FACES_1024.name
CARS = CARS_512.name


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """Facts about one method."""

    key: str
    """The name of the method in commands and files."""
    title: str
    """The name of the method in Table 5."""
    paper: str
    families: tuple[str, ...]
    """Names of the families it exists for."""
    licence: str
    """The licence of the official weights, in words; none of them are part of this project."""
    convention: str
    """The convention by which the method's row in Table 5 was counted, as far as its figures show."""


class Method(nn.Module, ABC):
    """Inversion and editing of images B x 3 x h x w in [-1, 1].

    Rendered images are B x 3 x S x S, nominally in [-1, 1], neither clamped nor cut to `family.visible_rows`.

    `latent_avg` is the mean of W, zero until weights are loaded: N x D, because the official files repeat it for each
    row; a method whose encoder needs the vector itself has 1 x D.
    """

    info: ClassVar[MethodInfo]
    resize: ClassVar[Filter] = "bilinear"
    """The filter by which the official code brings a photo to `input_size`: most by torchvision's `Resize` of a PIL
    image, which is bilinear and antialiased. What is done inside the networks is not meant."""
    edit_reads: ClassVar[tuple[str, ...] | None] = None
    """The fields of the inversion that `edit` reads; None for all of them."""
    reconstruct_reads: ClassVar[tuple[str, ...] | None] = None
    """The fields that `reconstruct` reads; None for all of them."""
    edits_styles: ClassVar[bool] = False
    """True if `edit` takes a style delta too, B x sum(style_channels)."""
    separate_graphs: ClassVar[tuple[str, ...]] = ()
    """The graphs of `engines.contracts.PARTS` that the method is also exported as."""
    identity_modules: ClassVar[tuple[str, ...]] = ("",)
    """Modules whose weights start at zero, so that they change nothing before training; "" is the whole network."""
    family: ModelFamily
    latent_avg: Tensor
    refinements: int | None = None
    """The number of times that `invert` refines the generator's weights; None for a method that refines none."""

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
        """The inversion of photos, all of an edit that depends on the photo alone: a NamedTuple of tensors.

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

    def edit_rows(self, inversion: Any, delta: Tensor, *style_delta: Tensor) -> Tensor:
        """`edit` where every edit is given as B x N x D, as graphs are: one that is the same in all rows is in W."""
        return self.edit(inversion, delta, *style_delta)

    def reconstruct(self, inversion: Any) -> Tensor:
        """The photo's reconstruction B x 3 x S x S: the edit by nothing, if the method has no other."""
        code = next(tensor for tensor in inversion if isinstance(tensor, Tensor))
        return self.edit(inversion, code.new_zeros(1, self.family.style_dim))

    def exportable(self) -> Self:
        """The method around the same tensors in a form that exports with a dynamic batch; most are in one already."""
        return self


def per_row(delta: Tensor) -> Tensor:
    """B x D or B x N x D to what may be added to a code B x N x D."""
    return delta[:, None] if delta.dim() == 2 else delta


def shrink(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear without antialiasing, pixel centres aligned: B x C x h x w to B x C x `size`."""
    if tuple(image.shape[2:]) == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def encoder_view(image: Tensor, family: ModelFamily) -> Tensor:
    """A rendered image as the encoders take photos: clamped to [-1, 1], cut to the visible rows, shrunk."""
    return shrink(visible(image.clamp(-1.0, 1.0), family), family.encoder_size)


def squared(x: Tensor) -> Tensor:
    """Zero rows above and below until the map is as high as it is wide.

    A 48 x 64 map of a car then lies where the generator's 64 x 64 feature shows the kept image rows.
    """
    margin = (x.shape[3] - x.shape[2]) // 2
    return F.pad(x, (0, 0, margin, margin)) if margin else x
