"""From a photo to what a model takes of it: one face, found and aligned, or the whole of a framed image."""

from __future__ import annotations

import numpy as np
from PIL import Image

from engines.errors import ImageError
from engines.photo.align import Alignment, align, aligned_square
from engines.photo.detect import FaceDetector, choose_face
from engines.photo.images import Photo, Pixels


class Cropper:
    """Cuts out what a model takes; the face detector is loaded at the first photo that needs it."""

    def __init__(self) -> None:
        self._detector: FaceDetector | None = None

    def __call__(
        self,
        photo: Photo,
        shape: tuple[int, int],
        *,
        aligned: bool = False,
        face: int | None = None,
        name: str = "the photo",
        model: str = "the model",
    ) -> tuple[Pixels, Alignment | None]:
        """Crops a photo.

        Args:
            photo: a photo.
            shape: height and width of the model's images; a model whose images are not square is not of faces.
            aligned: the photo is framed as the model takes it and is only resized.
            face: which face, 0 the largest; None takes the largest.
            name: what messages call the photo.
            model: what messages call the model.

        Returns:
            uint8 h x w x 3, and where it lies in the photo: None if it is the whole of it.

        Raises:
            ImageError: if the photo cannot be used or, as NoFaceError, has no such face.
        """
        height, width = shape
        faces = height == width
        if aligned:
            if faces:
                return aligned_square(photo.pixels, width), None
            return np.array(Image.fromarray(photo.pixels).resize((width, height), Image.Resampling.LANCZOS)), None
        if not faces:
            raise ImageError(f"{model} is not of faces: pass an image that is framed, with --aligned")
        if self._detector is None:
            self._detector = FaceDetector()
        found = choose_face(self._detector(photo.pixels), face, name=name)
        return align(photo.pixels, found.landmarks, width)
