"""What the pool's threads do with a photo: open, find the face, put it back, encode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engines.photo import Alignment, Photo, paste_back, paste_mode
from engines.photo.images import encode_image

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True, eq=False)
class Subject:
    """A photo whose face was found."""

    photo: Photo
    crop: np.ndarray
    """uint8 h x w x 3: the face as the model sees it."""
    alignment: Alignment | None
    """None for a photo that was given as an aligned face."""

    @property
    def needs_reconstruction(self) -> bool:
        """Whether the photo has more pixels than the model there, so that only the change is put back."""
        return self.alignment is not None and paste_mode(self.alignment, len(self.crop)) == "detail"


def finish(face: np.ndarray, subject: Subject | None, base: np.ndarray | None, file_format: str, quality: int) -> bytes:
    """The answer's bytes.

    Args:
        face: uint8 h x w x 3, the model's edit.
        subject: the photo to put it back into; None encodes the face alone.
        base: the model's rendering without the edit, where `subject.needs_reconstruction`.
        file_format: one of `MEDIA_TYPES`.
        quality: 1 to 100.
    """
    pixels, alpha = face, None
    if subject is not None and subject.alignment is not None:
        pixels = paste_back(subject.photo.pixels, face, face if base is None else base, subject.alignment)
        alpha = subject.photo.alpha
    return encode_image(pixels, file_format.upper(), quality=quality, alpha=alpha)
