"""Work of the pool's threads: the face of a photo is put back and the picture encoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from engines.photo import Cut, Face, Photo, paste_mode
from engines.photo.credentials import MEDIA_TYPES as BY_FORMAT
from engines.photo.credentials import Credentials, Statement
from engines.photo.images import encode_image

MEDIA_TYPES = {file_format.lower(): media_type for file_format, media_type in BY_FORMAT.items()}


@dataclass(frozen=True, eq=False)
class DetectedFaces:
    """A photo that was decoded, and its faces, the largest first."""

    photo: Photo
    faces: list[Face]


def needs_reconstruction(cut: Cut) -> bool:
    """Whether the photo has more pixels than the model there, so that only the change is put back."""
    return cut.alignment is not None and paste_mode(cut.alignment, len(cut.face)) == "detail"


def finish(
    face: np.ndarray,
    cut: Cut | None,
    base: np.ndarray | None,
    paste: bool,
    file_format: str,
    quality: int,
    side: int | None,
    credentials: Credentials | None,
    statement: Statement,
) -> bytes:
    """The answer's bytes.

    Args:
        face: uint8 h x w x 3, the model's edit.
        cut: the photo that it is of; None leaves the face as it is.
        base: the model's rendering without the edit, where `needs_reconstruction`.
        paste: put it back into the photo.
        file_format: one of `MEDIA_TYPES`.
        side: the longer side to which a larger picture is reduced; None leaves it as it is.
        credentials: write the statement into the file; None writes none.
    """
    pixels, alpha = face, None
    if cut is not None:
        pixels = cut.put_back(face, face if base is None else base) if paste else cut.in_tone(face)
        alpha = cut.photo.alpha if paste and cut.alignment is not None else None
    if side is not None and max(pixels.shape[:2]) > side:
        pixels, alpha = (None if plane is None else _reduced(plane, side) for plane in (pixels, alpha))
        assert pixels is not None
    if credentials is None:
        return encode_image(pixels, file_format.upper(), quality=quality, alpha=alpha)
    return credentials.encode(pixels, file_format.upper(), statement, quality=quality, alpha=alpha)


def grey_levels(values: np.ndarray) -> np.ndarray:
    """Values of 0 and more, h x w, as uint8 h x w x 3: 255 is the largest of them."""
    levels = np.rint(values * (255 / max(float(values.max()), 1e-12))).astype(np.uint8)
    return levels[:, :, None].repeat(3, axis=2)


def memory(photo: Photo, *more: np.ndarray) -> int:
    """Bytes of a photo and of further arrays."""
    arrays = (photo.pixels, photo.alpha, *more)
    return sum(array.nbytes for array in arrays if array is not None)


def _reduced(plane: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray(plane)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.asarray(image)
