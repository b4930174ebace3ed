from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from engines.errors import NoFaceError, RuntimeUnavailableError
from engines.photo import Face, FaceDetector, choose_face, ffhq_alignment, mtcnn, open_image


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def fake_face(side: float) -> Face:
    return Face((0.0, 0.0, side, side), np.zeros((5, 2)), 0.9)


def test_astronaut(detector: FaceDetector) -> None:
    (face,) = detector(astronaut())
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert face.score > 0.99 and 90 < face.size < 130
    assert np.abs(left_eye - (204, 102)).max() < 4 and np.abs(right_eye - (246, 104)).max() < 4
    assert left_eye[0] < nose[0] < right_eye[0] and left_eye[1] < nose[1] < left_mouth[1]
    assert left_mouth[0] < right_mouth[0]
    left, top, right, bottom = face.box
    assert (face.landmarks > (left, top)).all() and (face.landmarks < (right, bottom)).all()


def test_mirrored_photo_gives_mirrored_landmarks(detector: FaceDetector) -> None:
    photo = astronaut()
    (face,), (mirrored,) = detector(photo), detector(np.ascontiguousarray(photo[:, ::-1]))
    expected = face.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (photo.shape[1], 0)
    assert np.abs(mirrored.landmarks - expected).max() < 0.02 * face.size


@pytest.mark.parametrize("factor", [0.25, 0.5, 3.0])
def test_coordinates_are_the_photos_at_any_size(detector: FaceDetector, factor: float) -> None:
    photo = Image.fromarray(astronaut())
    side = int(512 * factor)
    (face,) = detector(np.asarray(photo.resize((side, side), Image.Resampling.LANCZOS)))
    (reference,) = detector(astronaut())
    assert np.abs(face.landmarks / factor - reference.landmarks).max() < 0.04 * reference.size


@pytest.mark.parametrize("degrees", [-45, -20, 20, 45])
def test_tilted_face(detector: FaceDetector, degrees: float) -> None:
    photo = Image.fromarray(astronaut()).crop((80, 0, 380, 300))
    reference = ffhq_alignment(detector(np.asarray(photo))[0].landmarks)
    turned = photo.rotate(degrees, Image.Resampling.BICUBIC)  # counter-clockwise
    alignment = ffhq_alignment(detector(np.asarray(turned))[0].landmarks)
    assert alignment.rotation - reference.rotation == pytest.approx(-degrees, abs=1.5)
    assert alignment.side == pytest.approx(reference.side, rel=0.04)


def test_several_faces_largest_first(detector: FaceDetector) -> None:
    photo = Image.fromarray(astronaut()).crop((120, 0, 320, 220))
    wide = Image.new("RGB", (520, 220), (128, 128, 128))
    wide.paste(photo.resize((100, 110), Image.Resampling.LANCZOS), (20, 50))
    wide.paste(photo, (260, 0))
    faces = detector(np.asarray(wide))
    assert len(faces) == 2 and faces[0].size > 1.7 * faces[1].size
    assert faces[0].landmarks[2, 0] > 260 > faces[1].landmarks[2, 0]


@pytest.mark.parametrize("shape", [(16, 16), (16, 400), (33, 47), (300, 300), (1500, 1100)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_no_face_in_plain_images(detector: FaceDetector, shape: tuple[int, int], value: int) -> None:
    assert detector(np.full((*shape, 3), value, np.uint8)) == []


def test_no_face_in_noise(detector: FaceDetector) -> None:
    assert detector(np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)) == []


def test_choose_face() -> None:
    faces = [fake_face(90), fake_face(50)]
    assert choose_face(faces) is faces[0]
    assert choose_face(faces, 1) is faces[1]
    with pytest.raises(NoFaceError, match=r"no face found in a\.jpg; pass --aligned"):
        choose_face([], name="a.jpg")
    with pytest.raises(NoFaceError, match="no face found"):
        choose_face([], 0)
    with pytest.raises(NoFaceError, match="no face number 2 in the photo; it has 2 faces, numbers 0 to 1"):
        choose_face(faces, 2)
    with pytest.raises(NoFaceError, match="it has 1 face, number 0"):
        choose_face(faces[:1], -1)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeUnavailableError, match="pip install mtcnn-runtime"):
        FaceDetector()


def test_neither_opencv_nor_torch_is_imported() -> None:
    code = (
        "import sys, numpy as np; from engines.photo import FaceDetector;"
        "FaceDetector()(np.zeros((64, 64, 3), np.uint8));"
        "print(sorted({'cv2', 'torch', 'mtcnnruntime'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_suppress_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [2, 2, 6, 6]], np.float32)
    scores = np.array([0.8, 0.9, 0.5, 0.7], np.float32)
    assert mtcnn.suppress(boxes, scores, 0.5).tolist() == [1, 3, 2]
    assert mtcnn.suppress(boxes, scores, 0.5, over_smaller=True).tolist() == [1, 2]
    assert mtcnn.suppress(boxes[:0], scores[:0], 0.5).tolist() == []


def test_every_shared_portrait_is_detected(detector: FaceDetector, shared: Path) -> None:
    photos = sorted((shared / "photos").glob("*.jpg"))
    assert len(photos) == 10
    for path in photos:
        pixels = open_image(path).pixels
        face = choose_face(detector(pixels), name=path.name)
        alignment = ffhq_alignment(face.landmarks)
        assert face.score > 0.9
        assert 0.4 < alignment.side / pixels.shape[1] < 1.4 and abs(alignment.rotation) < 12
