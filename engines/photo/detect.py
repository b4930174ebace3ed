"""Faces and their five landmarks in a photo, whichever way up it lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.errors import NoFaceError
from engines.packages import Progress
from engines.photo.align import upright_axis
from engines.photo.mtcnn import Mtcnn

MAX_SIDE = 1024
"""Longer side, in pixels, to which a larger photo is reduced for detection."""
MIN_SIDE = 256
"""Longer side, in pixels, to which a smaller photo is enlarged for detection."""

SURE = 3.5
"""Evidence from which on a face that stands upright is taken without looking at the photo's other turns. 90 % of 813
faces of the training data have more; what was taken for an upright face in turned photos of them, or of 217 blurred
ones, has 3.1 at most."""
LIKELY = 2.0
"""Evidence that a face needs which was found in a turned photo only: 99.5 % of the same faces have it. What was taken
for a face in photos without one had 0.5 at most."""
UNLIKELY = 1.3
"""Evidence below which what was found is dropped if a turn has a likely face; the least of the 813 is 1.36."""
LEAD = 0.5
"""Evidence by which one way up must lead the others to be taken; the least lead of the 813 faces is 0.94."""
UPRIGHT = 45.0
"""Degrees to either side up to which a face counts as upright."""


@dataclass(frozen=True, eq=False)
class Face:
    """One face, in the photo's continuous pixel coordinates (the centre of the first pixel is 0.5, 0.5)."""

    box: tuple[float, float, float, float]
    """The box as left, top, right, bottom; it may reach outside the photo."""
    landmarks: NDArray[np.float64]
    """5 x 2 (x, y): left eye, right eye, nose, left mouth corner, right mouth corner, as seen with the face upright."""
    score: float
    """Face probability in [0, 1]."""
    evidence: float = 0.0
    """Evidence that a face stands upright by these landmarks, 0 to 6, see `engines.photo.mtcnn.Mtcnn.landmarks`."""
    clear: bool = True
    """True if no other way up is as likely."""

    @property
    def size(self) -> float:
        """Longer side of the box, in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def centre(self) -> tuple[float, float]:
        """The centre of the box."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def rotation(self) -> float:
        """The angle by which the face is turned from upright, in degrees, clockwise as seen."""
        across = upright_axis(self.landmarks)
        return math.degrees(math.atan2(across[1], across[0]))

    def matches(self, other: Face) -> bool:
        """True if both may be the same face of the photo."""
        return math.dist(self.centre, other.centre) < max(self.size, other.size) / 2


class Candidate(NamedTuple):
    """A face that was found in one of a photo's quarter turns."""

    as_it_is: bool
    """True if the photo was not turned."""
    tilt: float
    """Degrees by which the face is off upright in the turned photo."""
    face: Face
    """The face in the coordinates of the photo."""


class FaceDetector:
    """MTCNN on the CPU. Loading takes some ten milliseconds; one detector serves many photos and threads.

    Args:
        progress: called with one line before the package with the weights is fetched, where it is not at hand.

    Raises:
        RuntimeUnavailableError: if that package is not installed and cannot be fetched.
        PackageError: if it is another version or damaged.
        OutputError: if the cache folder cannot be written.
    """

    def __init__(self, *, threads: int = 1, progress: Progress = lambda line: None) -> None:
        self._mtcnn = Mtcnn(threads=threads, progress=progress)

    def __call__(self, pixels: NDArray[np.uint8]) -> list[Face]:
        """Detect faces.

        Args:
            pixels: uint8 H x W x 3, RGB. Faces below about 2 % of the longer side are not looked for.

        The photo is looked at upside down and on its sides too if its largest face is not one that surely stands
        upright; each face is then taken the way up that the landmarks' network is surest of.

        Returns:
            Faces, the largest first; empty if there is none.
        """
        faces = self._upright(pixels)
        if not faces or faces[0].evidence < SURE or abs(faces[0].rotation) > UPRIGHT:
            turned = [self._upright(np.ascontiguousarray(np.rot90(pixels, turn))) for turn in (1, 2, 3)]
            faces = best_way_up([faces, *turned], *pixels.shape[:2])
        return faces

    def _upright(self, pixels: NDArray[np.uint8]) -> list[Face]:
        """Faces that the cascade finds without turning the photo, the largest first."""
        image = Image.fromarray(pixels)
        longer = max(image.size)
        wanted = min(max(longer, MIN_SIDE), MAX_SIDE)
        if wanted != longer:
            size = (max(1, round(image.width * wanted / longer)), max(1, round(image.height * wanted / longer)))
            image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        scale = np.array([pixels.shape[1] / image.width, pixels.shape[0] / image.height])
        boxes, rough, scores = self._mtcnn(image)
        landmarks, evidence = self._mtcnn.landmarks(np.asarray(image), boxes, rough)
        faces = []
        for box, points, score, sure in zip(boxes, landmarks, scores, evidence, strict=True):
            left, top, right, bottom = (box.reshape(2, 2) * scale).ravel().tolist()
            faces.append(Face((left, top, right, bottom), points.astype(np.float64) * scale, float(score), float(sure)))
        return _largest_first(faces)


def best_way_up(turns: Sequence[Sequence[Face]], height: int, width: int) -> list[Face]:
    """The faces of a photo from those that were found in its quarter turns.

    Args:
        turns: the faces found in `np.rot90(photo, turn)`, turn 0 to 3, in the coordinates of that.
        height, width: the photo's, in pixels.

    Returns:
        Faces, the largest first, in the coordinates of the photo.
    """
    candidates = [
        Candidate(turn == 0, abs(face.rotation), _turned_back(face, turn, height, width))
        for turn, faces in enumerate(turns)
        for face in faces
    ]
    candidates.sort(key=lambda one: one.face.evidence, reverse=True)
    least = UNLIKELY if candidates and candidates[0].face.evidence >= LIKELY else 0.0
    distinct = []
    while candidates:
        best = candidates[0].face
        here = [one for one in candidates if one.face.matches(best)]
        candidates = [one for one in candidates if not one.face.matches(best)]
        if best.evidence < (least if any(one.as_it_is for one in here) else LIKELY):
            continue
        same = [one for one in here if _apart(one.face.rotation, best.rotation) <= UPRIGHT]
        rival = max((one.face.evidence for one in here if one not in same), default=0.0)
        # The cascade was made for upright faces: of its findings the one is taken in which the face stands straightest.
        straightest = min(same, key=lambda one: one.tilt).face
        distinct.append(replace(straightest, clear=best.evidence - rival >= LEAD))
    return _largest_first(distinct)


def _largest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: face.size, reverse=True)


def _apart(one: float, other: float) -> float:
    """Angle between two directions, 0 to 180 degrees."""
    return abs((one - other + 180) % 360 - 180)


def _turned_back(face: Face, turn: int, height: int, width: int) -> Face:
    """A face of `np.rot90(photo, turn)` in the coordinates of the photo, height x width."""
    points = np.concatenate([face.landmarks, np.reshape(face.box, (2, 2))])
    x, y = points.T
    points = np.stack([(x, y), (width - y, x), (width - x, height - y), (y, height - x)][turn], axis=1)
    left, top, right, bottom = *points[5:].min(axis=0).tolist(), *points[5:].max(axis=0).tolist()
    return replace(face, box=(left, top, right, bottom), landmarks=points[:5])


def choose_face(faces: Sequence[Face], index: int | None = None, *, name: str = "the photo") -> Face:
    """The face to edit.

    Args:
        faces: as a `FaceDetector` returns them, the largest first.
        index: which one, from 0; None takes the largest.

    Raises:
        NoFaceError: if there is no face at all or no face of that index, or it cannot be told which way up it is.
    """
    if not faces:
        raise NoFaceError(
            f"no face found in {name}, whichever way up; pass --aligned if the image is already an aligned face"
        )
    index = 0 if index is None else index
    if not 0 <= index < len(faces):
        available = "1 face, number 0" if len(faces) == 1 else f"{len(faces)} faces, numbers 0 to {len(faces) - 1}"
        raise NoFaceError(f"no face number {index} in {name}; it has {available}, largest first")
    if not faces[index].clear:
        raise NoFaceError(f"cannot tell which way up the face in {name} is; turn the photo upright and pass it again")
    return faces[index]
