"""Faces and their five landmarks in a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.errors import NoFaceError
from engines.photo.mtcnn import Mtcnn

MAX_SIDE = 1024
"""Longer side, in pixels, to which a larger photo is reduced for detection."""
MIN_SIDE = 256
"""Longer side, in pixels, to which a smaller photo is enlarged for detection."""


@dataclass(frozen=True, eq=False)
class Face:
    """One face, in the photo's continuous pixel coordinates (the centre of the first pixel is 0.5, 0.5)."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom; may reach outside the photo."""
    landmarks: NDArray[np.float64]
    """5 x 2 (x, y): left eye, right eye, nose, left mouth corner, right mouth corner, as seen in the image."""
    score: float
    """Face probability in [0, 1]."""

    @property
    def size(self) -> float:
        """Longer side of the box, in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


class FaceDetector:
    """MTCNN on the CPU. Loading takes some ten milliseconds; one detector serves many photos and threads.

    Args:
        threads: threads per network.

    Raises:
        RuntimeUnavailableError: if the package with the weights is not installed.
    """

    def __init__(self, *, threads: int = 1) -> None:
        self._mtcnn = Mtcnn(threads=threads)

    def __call__(self, pixels: NDArray[np.uint8]) -> list[Face]:
        """Detect faces.

        Args:
            pixels: uint8 H x W x 3, RGB. Faces below about 2 % of the longer side are not looked for.

        Returns:
            Faces, the largest first; empty if there is none.
        """
        image = Image.fromarray(pixels)
        longer = max(image.size)
        wanted = min(max(longer, MIN_SIDE), MAX_SIDE)
        if wanted != longer:
            size = (max(1, round(image.width * wanted / longer)), max(1, round(image.height * wanted / longer)))
            image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        scale = np.array([pixels.shape[1] / image.width, pixels.shape[0] / image.height])
        boxes, rough, scores = self._mtcnn(image)
        landmarks = self._mtcnn.landmarks(np.asarray(image), boxes, rough)
        faces = []
        for box, points, score in zip(boxes, landmarks, scores, strict=True):
            left, top, right, bottom = (box.reshape(2, 2) * scale).ravel().tolist()
            faces.append(Face((left, top, right, bottom), points.astype(np.float64) * scale, float(score)))
        return sorted(faces, key=lambda face: face.size, reverse=True)


def choose_face(faces: Sequence[Face], index: int | None = None, *, name: str = "the photo") -> Face:
    """The face to edit.

    Args:
        faces: as a `FaceDetector` returns them, the largest first.
        index: which one, from 0; None takes the largest.
        name: what the error message calls the photo.

    Raises:
        NoFaceError: if there is no face at all or no face of that index.
    """
    if not faces:
        raise NoFaceError(f"no face found in {name}; pass --aligned if the image is already an aligned face")
    if index is None:
        return faces[0]
    if not 0 <= index < len(faces):
        found = "1 face, number 0" if len(faces) == 1 else f"{len(faces)} faces, numbers 0 to {len(faces) - 1}"
        raise NoFaceError(f"no face number {index} in {name}; it has {found}, largest first")
    return faces[index]
