"""Putting an edited crop back into its photo."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.errors import ImageError
from engines.photo.align import Alignment

PasteMode: TypeAlias = Literal["auto", "detail", "replace"]

MASK_POWER = 4.0
"""Exponent of the mask's rounded square |x|^p + |y|^p = 1."""
MASK_SOLID = 0.7
"""The mask is 1 up to this fraction of the way from the crop's centre to its border ..."""
MASK_END = 0.98
"""... and 0 from this one on."""


def feather(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weight of the edit at points of the crop, in [0, 1].

    Args:
        x, y: coordinates of equal shape; the crop is [-1, 1] in both.
    """
    distance = (np.abs(x) ** MASK_POWER + np.abs(y) ** MASK_POWER) ** (1 / MASK_POWER)
    t = np.clip((MASK_END - distance) / (MASK_END - MASK_SOLID), 0.0, 1.0)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def paste_mode(alignment: Alignment, size: int) -> Literal["detail", "replace"]:
    """What "auto" means: "detail" where the face has more pixels in the photo than in a crop of side `size`."""
    return "detail" if alignment.side > size else "replace"


def paste_back(
    pixels: NDArray[np.uint8],
    edited: NDArray[np.uint8],
    reconstruction: NDArray[np.uint8],
    alignment: Alignment,
    mode: PasteMode = "auto",
) -> NDArray[np.uint8]:
    """Blend an edited crop into the photo under a feathered mask.

    "replace" puts the edited pixels in place of the photo's: right for a model that renders at least as many pixels as
    the photo has there, and for edits that move much.
    "detail" adds what the edit changed, photo + mask * (edited - reconstruction), enlarged smoothly: pores, hair and
    grain of the photo stay, so a small model does not blur a large photo. Where an edit moves a sharp contour, a
    trace of the old one may remain.
    "auto" takes "detail" where the crop would have to be enlarged, and "replace" elsewhere.

    Pixels outside the mask are bit-identical to the photo's; so is the whole photo in "detail" mode where `edited`
    equals `reconstruction`.

    Args:
        pixels: uint8 H x W x 3, the photo.
        edited: uint8 S x S x 3, the model's edit; S may differ from the side used for aligning.
        reconstruction: uint8 S x S x 3, the model's rendering without an edit (read in "detail" mode only).
        alignment: where the crop lies.
        mode: see above.

    Returns:
        uint8 H x W x 3, a new array.

    Raises:
        ImageError: if a crop is not square, or the two differ in shape.
        ValueError: for an unknown mode.
    """
    if mode not in ("auto", "detail", "replace"):
        raise ValueError(f'mode must be "auto", "detail" or "replace", got {mode!r}')
    size = edited.shape[0]
    if edited.shape != (size, size, 3) or edited.dtype != np.uint8:
        raise ImageError(f"the edited crop must be uint8 and square, got {edited.dtype} {edited.shape}")
    if mode == "auto":
        mode = paste_mode(alignment, size)
    if mode == "detail" and reconstruction.shape != edited.shape:
        raise ImageError(f"the reconstruction is {reconstruction.shape}, the edited crop {edited.shape}: must be equal")

    result = pixels.copy()
    height, width = pixels.shape[:2]
    low, high = np.floor(alignment.quad.min(axis=0)), np.ceil(alignment.quad.max(axis=0))
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), width), min(int(high[1]), height)
    if left >= right or top >= bottom:
        return result
    region = result[top:bottom, left:right]

    source = edited.astype(np.float32)
    if mode == "detail":
        source -= reconstruction
    warped = _warp(source, alignment, (left, top), (right - left, bottom - top))
    matrix = alignment.photo_to_crop(2)
    x, y = np.arange(left, right) + 0.5, (np.arange(top, bottom) + 0.5)[:, None]
    mask = feather(*(row[0] * x + row[1] * y + row[2] - 1 for row in matrix[:2]))[:, :, None]
    photo = region.astype(np.float32)
    change = warped if mode == "detail" else warped - photo
    region[:] = np.rint(photo + mask * change).clip(0, 255)
    return result


def _warp(
    crop: NDArray[np.float32], alignment: Alignment, corner: tuple[int, int], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Resample an S x S x 3 crop onto photo pixels from `corner` (x, y) on; `shape` is their width and height."""
    size = crop.shape[0]
    # Fewer pixels in the photo than in the crop: low-pass by shrinking to the photo's scale first.
    side = size if alignment.side >= size else max(4, math.ceil(alignment.side))
    border = 4
    matrix = alignment.photo_to_crop(side)[:2]
    matrix[:, 2] += matrix[:, :2] @ np.asarray(corner, dtype=np.float64) + border
    planes = []
    for channel in np.moveaxis(crop, 2, 0):
        plane = Image.fromarray(np.ascontiguousarray(channel))
        if side != size:
            plane = plane.resize((side, side), Image.Resampling.LANCZOS)
        plane = Image.fromarray(np.pad(np.asarray(plane), border, mode="edge"))
        planes.append(plane.transform(shape, Image.Transform.AFFINE, tuple(matrix.ravel()), Image.Resampling.BICUBIC))
    return np.stack([np.asarray(plane) for plane in planes], axis=2)
