"""From a photo to what a model takes of it, one face, found and aligned, or the whole of a framed image, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from engines.errors import ImageError
from engines.packages import Progress
from engines.photo.align import Alignment, aligned_square, extract, ffhq_alignment
from engines.photo.detect import Face, FaceDetector, choose_face
from engines.photo.images import Photo, Pixels
from engines.photo.paste import PasteMode, paste_back
from engines.photo.tone import LUMA, PLAIN, Tone, read_tone

LIFTS = (1.0, 4.0, 16.0)
"""The gains of a dark photo, tried in turn until a face is found in it."""


@dataclass(frozen=True, eq=False)
class Cut:
    """The pixels that were cut out of a photo for a model."""

    photo: Photo
    face: Pixels
    """uint8 h x w x 3, as the photo has it."""
    alignment: Alignment | None
    """The place of the face in the photo; None if it is the whole of it."""
    tone: Tone = PLAIN

    @property
    def crop(self) -> Pixels:
        """uint8 h x w x 3, as the model takes it."""
        return self.tone.crop(self.face)

    def in_tone(self, face: Pixels) -> Pixels:
        """A face that the model gave for the crop, uint8 h x w x 3, in the light and colours of the photo."""
        if self.tone.plain:
            return face
        base = self.tone.clean(self.face).astype(np.float32)
        everywhere = np.ones(face.shape[:2], np.float32)
        changed = self.tone.changed(base, face - self.tone.lift(base), everywhere)
        return np.rint(changed).clip(0, 255).astype(np.uint8)

    def put_back(self, edited: Pixels, reconstruction: Pixels, mode: PasteMode = "auto") -> Pixels:
        """The photo with an edited face, see `paste_back`; the face alone, as `in_tone`, if it is the whole photo."""
        if self.alignment is None:
            return self.in_tone(edited)
        return paste_back(self.photo.pixels, edited, reconstruction, self.alignment, mode, self.tone)


class Cropper:
    """Cuts out what a model takes; the face detector is loaded at the first photo that needs it.

    Args:
        progress: called with one line before the detector's weights are fetched, where they are not at hand.
    """

    def __init__(self, progress: Progress = lambda line: None) -> None:
        self._progress = progress
        self._detector: FaceDetector | None = None

    def __call__(
        self,
        photo: Photo,
        shape: tuple[int, int],
        *,
        aligned: bool = False,
        face: int | None = None,
        faces: Sequence[Face] | None = None,
        name: str = "the photo",
        model: str = "the model",
    ) -> Cut:
        """Crops a photo.

        Args:
            shape: height and width of the model's images; a model whose images are not square is not of faces.
            aligned: the photo is framed as the model takes it and is only resized.
            face: which face, 0 the largest; None takes the largest.
            faces: those of this photo, if they have been found; None looks for them.
            name: what messages call the photo.
            model: what messages call the model.

        Raises:
            ImageError: if the photo cannot be used or, as NoFaceError, has no such face.
            RuntimeUnavailableError, PackageError, OutputError: as `FaceDetector`.
        """
        height, width = shape
        of_faces = height == width
        if aligned and not of_faces:
            framed = np.array(Image.fromarray(photo.pixels).resize((width, height), Image.Resampling.LANCZOS))
            return Cut(photo, framed, None)
        if aligned:
            square = aligned_square(photo.pixels, width)
            return Cut(photo, square, None, read_tone(square))
        if not of_faces:
            raise ImageError(f"{model} is not of faces: pass an image that is framed, with --aligned")
        detected = choose_face(self.faces(photo) if faces is None else faces, face, name=name)
        cut = _cut(photo, detected, width)
        if cut.tone.gain > 1:
            # Landmarks are exact in ordinary light only.
            lighter = [one for one in self._detect(cut.tone.crop(photo.pixels)) if one.clear and one.matches(detected)]
            cut = _cut(photo, max(lighter, key=lambda one: one.evidence), width) if lighter else cut
        return cut

    def faces(self, photo: Photo) -> list[Face]:
        """The faces of a photo, the largest first: number `face` of a call is the one at that place.

        Raises:
            RuntimeUnavailableError, PackageError, OutputError: as `FaceDetector`.
        """
        detected = self._detect(photo.pixels)
        median = float(np.median(photo.pixels[::8, ::8] @ LUMA))
        for lift in LIFTS[1:]:
            if detected or median * lift > 255:
                break
            detected = self._detect(Tone(lift).crop(photo.pixels))
        return detected

    def _detect(self, pixels: Pixels) -> list[Face]:
        if self._detector is None:
            self._detector = FaceDetector(progress=self._progress)
        return self._detector(pixels)


def _cut(photo: Photo, face: Face, size: int) -> Cut:
    alignment = ffhq_alignment(face.landmarks)
    pixels = extract(photo.pixels, alignment, size)
    return Cut(photo, pixels, alignment, read_tone(pixels))
