"""What the pool's threads do with a photo whose face was found: put it back and encode it."""

from __future__ import annotations

import numpy as np

from engines.photo import Cut, paste_mode
from engines.photo.images import encode_image

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def needs_reconstruction(cut: Cut) -> bool:
    """Whether the photo has more pixels than the model there, so that only the change is put back."""
    return cut.alignment is not None and paste_mode(cut.alignment, len(cut.face)) == "detail"


def finish(
    face: np.ndarray, cut: Cut | None, base: np.ndarray | None, paste: bool, file_format: str, quality: int
) -> bytes:
    """The answer's bytes.

    Args:
        face: uint8 h x w x 3, the model's edit.
        cut: the photo that it is of; None leaves the face as it is.
        base: the model's rendering without the edit, where `needs_reconstruction`.
        paste: put it back into the photo.
        file_format: one of `MEDIA_TYPES`.
        quality: 1 to 100.
    """
    pixels, alpha = face, None
    if cut is not None:
        pixels = cut.put_back(face, face if base is None else base) if paste else cut.in_tone(face)
        alpha = cut.photo.alpha if paste and cut.alignment is not None else None
    return encode_image(pixels, file_format.upper(), quality=quality, alpha=alpha)
