"""Putting an edited crop back into its photo."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.errors import ImageError
from engines.photo.align import Alignment
from engines.photo.tone import PLAIN, Tone

PasteMode: TypeAlias = Literal["auto", "detail", "replace"]

MASK_SOLID = 0.8
"""The mask is 1 up to this fraction of the way from the crop's centre to its border: between the two a turned head and
its old outline are both seen ..."""
MASK_END = 0.99
"""... and 0 from this one on."""
BORDER = 4
"""Pixels by which a crop is continued, so that interpolation at its edge sees no black."""
BAND = 256
"""Photo rows blended at a time, which bounds the memory that a large face takes."""


def feather(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float32]:
    """Weight of the edit at points of the crop, in [0, 1].

    Args:
        x, y: coordinates that broadcast against each other; the crop is [-1, 1] in both.
    """
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    # |x|^4 + |y|^4 = 1 is a square with well-rounded corners.
    distance = np.sqrt(np.sqrt(np.square(x * x) + np.square(y * y)))
    t = np.clip((MASK_END - distance) / (MASK_END - MASK_SOLID), 0.0, 1.0)
    return (t * t * (3 - 2 * t)).astype(np.float32, copy=False)


def paste_mode(alignment: Alignment, size: int) -> Literal["detail", "replace"]:
    """The meaning of "auto": "detail" where the face has more pixels in the photo than in a crop of side `size`."""
    return "detail" if alignment.side > size else "replace"


def paste_back(
    pixels: NDArray[np.uint8],
    edited: NDArray[np.uint8],
    reconstruction: NDArray[np.uint8],
    alignment: Alignment,
    mode: PasteMode = "auto",
    tone: Tone = PLAIN,
) -> NDArray[np.uint8]:
    """Blend an edited crop into the photo under a feathered mask.

    "replace" puts the edited pixels in place of the photo's: right for a model that renders at least as many pixels as
    the photo has there, and for edits that move much.
    "detail" adds what the edit changed, photo + mask * (edited - reconstruction), enlarged smoothly: pores, hair and
    grain of the photo stay, so a small model does not blur a large photo. Where an edit moves a sharp contour, a
    trace of the old one may remain.
    "auto" takes "detail" where the crop would have to be enlarged, and "replace" elsewhere.

    Pixels outside the mask are bit-identical to the photo's; so is the whole photo in "detail" mode where `edited`
    equals `reconstruction`. The one exception is a black-and-white photo whose channels differ by noise: they are made
    equal everywhere.

    Args:
        pixels: uint8 H x W x 3, the photo.
        edited: uint8 S x S x 3, the model's edit; S may differ from the side used for aligning.
        reconstruction: uint8 S x S x 3, the model's rendering without an edit (read in "detail" mode only).
        alignment: where the crop lies.
        mode: see above.
        tone: the light and colours of the photo, as read from the face; by default the model's own.

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

    result = tone.clean(pixels)
    height, width = pixels.shape[:2]
    low, high = np.floor(alignment.quad.min(axis=0)), np.ceil(alignment.quad.max(axis=0))
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), width), min(int(high[1]), height)
    if left >= right or top >= bottom:
        return result
    source = edited.astype(np.float32)
    if mode == "detail":
        source -= reconstruction
    planes = _planes(source, alignment.side)
    to_planes, to_mask = alignment.photo_to_crop(planes[0].width - 2 * BORDER)[:2], alignment.photo_to_crop(2)[:2]
    to_planes[:, 2] += BORDER
    to_mask[:, 2] -= 1
    columns = np.arange(left, right) + 0.5
    for first in range(top, bottom, BAND):
        band = result[first : min(first + BAND, bottom), left:right]
        rows = (np.arange(first, first + len(band)) + 0.5)[:, None]
        mask = feather(*(row[0] * columns + row[1] * rows + row[2] for row in to_mask))
        matrix = to_planes.copy()
        matrix[:, 2] += matrix[:, :2] @ (left, first)
        warped = [
            plane.transform(
                (band.shape[1], band.shape[0]), Image.Transform.AFFINE, tuple(matrix.ravel()), Image.Resampling.BILINEAR
            )
            for plane in planes
        ]
        change, photo = np.stack([np.asarray(plane) for plane in warped], axis=-1), band.astype(np.float32)
        if mode == "replace":
            change -= tone.lift(photo)
        band[:] = np.rint(tone.changed(photo, change, mask)).clip(0, 255)
    return result


def _planes(crop: NDArray[np.float32], side: float) -> list[Image.Image]:
    """The crop's channels at two pixels per photo pixel, with a border; a bilinear transform does the rest.

    Pillow's bicubic transform is not used: its kernel (a = -1) is off by up to a tenth of a pixel on a plain slope.

    Args:
        crop: S x S x 3.
        side: the crop's side in photo pixels.
    """
    size = crop.shape[0]
    photo_side = max(2, math.ceil(side))
    # More than that adds nothing to what so few crop pixels can hold.
    target = min(2 * photo_side, max(4 * size, 2048))
    planes = []
    for channel in np.moveaxis(crop, 2, 0):
        plane = Image.fromarray(np.ascontiguousarray(channel))
        if photo_side < size:
            # The photo has fewer pixels than the crop: low-pass to what it can hold.
            plane = plane.resize((photo_side, photo_side), Image.Resampling.LANCZOS)
        plane = plane.resize((target, target), Image.Resampling.BICUBIC)
        planes.append(Image.fromarray(np.pad(np.asarray(plane), BORDER, mode="edge")))
    return planes
