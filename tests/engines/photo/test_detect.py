from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.data import astronaut

from engines import packages
from engines.errors import NoFaceError, RuntimeUnavailableError
from engines.photo import Face, FaceDetector, choose_face, ffhq_alignment, mtcnn, open_image
from engines.photo.detect import best_way_up
from tests.engines.packaged import write_wheel


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
    with pytest.raises(NoFaceError, match=r"no face found in a\.jpg, whichever way up; pass --aligned"):
        choose_face([], name="a.jpg")
    with pytest.raises(NoFaceError, match="no face found"):
        choose_face([], 0)
    with pytest.raises(NoFaceError, match="no face number 2 in the photo; it has 2 faces, numbers 0 to 1"):
        choose_face(faces, 2)
    with pytest.raises(NoFaceError, match="it has 1 face, number 0"):
        choose_face(faces[:1], -1)


def test_a_face_that_may_be_either_way_up_is_refused() -> None:
    faces = [fake_face(90), replace(fake_face(50), clear=False)]
    assert choose_face(faces) is faces[0]
    with pytest.raises(NoFaceError, match=r"cannot tell which way up the face in b\.png is; turn the photo upright"):
        choose_face(faces, 1, name="b.png")


def found(evidence: float, x: float = 50, y: float = 40, degrees: float = 0, size: float = 40) -> Face:
    """A face in a photo 100 high and 200 wide, or a turn of it, turned clockwise by some degrees."""
    points = np.array([(-10, -8), (10, -8), (0, 0), (-8, 10), (8, 10)])
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    landmarks = points @ np.array([(c, s), (-s, c)]) + (x, y)
    return Face((x - size / 2, y - size / 2, x + size / 2, y + size / 2), landmarks, 0.9, evidence)


def test_each_face_is_taken_the_way_up_that_has_most_evidence() -> None:
    # Upside down, what lies at (50, 40) lies at (150, 60).
    upside_down = [[found(2.8)], [], [found(4.0, 150, 60)], []]
    (face,) = best_way_up(upside_down, 100, 200)
    assert face.evidence == 4.0 and face.clear and face.rotation == pytest.approx(180)
    assert np.abs(np.subtract(face.centre, (50, 40))).max() < 1e-9
    (face,) = best_way_up([[found(3.6)], [], [found(4.0, 150, 60)], []], 100, 200)
    assert not face.clear


def test_of_findings_that_agree_the_straightest_is_taken() -> None:
    # On its side, clockwise: found as it lies, and better placed in the photo's first quarter turn.
    lying = found(4.5, degrees=90, size=44)
    (face,) = best_way_up([[lying], [found(4.0, 40, 150)], [], []], 100, 200)
    assert face.size == 40 and face.clear and face.rotation == pytest.approx(90)


def test_what_is_unlikely_counts_only_where_nothing_is_likely() -> None:
    likely, doubtful, faint = found(2.6), found(1.4, 150), found(0.4, 150)
    (face,) = best_way_up([[likely, faint], [], [], []], 100, 200)
    assert face.evidence == 2.6
    assert len(best_way_up([[likely, doubtful], [], [], []], 100, 200)) == 2
    assert len(best_way_up([[faint], [], [], []], 100, 200)) == 1
    assert best_way_up([[], [doubtful], [faint], []], 100, 200) == []


@given(
    turn=st.integers(0, 3),
    x=st.floats(0, 200),
    y=st.floats(0, 100),
    degrees=st.floats(-180, 180),
)
def test_faces_of_turned_photos_lie_where_the_turn_took_them(turn: int, x: float, y: float, degrees: float) -> None:
    # A marked pixel of the photo and the face that is found on it in the turned photo.
    rows, columns = np.mgrid[:100, :200]
    row, column = np.rot90(np.stack([rows, columns], axis=-1), turn).shape[:2]
    face = found(5.0, x * column / 200, y * row / 100, degrees)
    turns: list[list[Face]] = [[], [], [], []]
    turns[turn] = [face]
    (back,) = best_way_up(turns, 100, 200)
    assert math.cos(math.radians(back.rotation - degrees - 90 * turn)) == pytest.approx(1)
    inside = np.clip(np.floor(face.centre).astype(int), 0, (column - 1, row - 1))
    there = np.rot90(np.stack([columns, rows], axis=-1), turn)[inside[1], inside[0]] + 0.5
    assert np.abs(np.subtract(back.centre, there)).max() <= 0.5 + 1e-9
    assert back.size == pytest.approx(face.size)


def test_a_group_upside_down(detector: FaceDetector) -> None:
    photo = Image.fromarray(astronaut()).crop((120, 0, 320, 220))
    wide = Image.new("RGB", (520, 220), (128, 128, 128))
    wide.paste(photo.resize((160, 176), Image.Resampling.LANCZOS), (20, 30))
    wide.paste(photo, (260, 0))
    upright = detector(np.asarray(wide))
    turned = detector(np.ascontiguousarray(np.asarray(wide)[::-1, ::-1]))
    assert len(upright) == len(turned) == 2
    for one, other in zip(upright, turned, strict=True):
        assert np.abs(other.landmarks - ((520, 220) - one.landmarks)).max() < 1e-6 and other.clear


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_portraits_whichever_way_up(detector: FaceDetector, shared: Path, turn: int) -> None:
    paths = sorted((shared / "photos").glob("*.jpg"))
    # Every third, another three for each turn.
    for path in paths[turn - 1 :: 3]:
        photo = open_image(path).pixels
        height, width = photo.shape[:2]
        upright = choose_face(detector(photo))
        face = choose_face(detector(np.ascontiguousarray(np.rot90(photo, turn))))
        x, y = face.landmarks.T
        back = [(x, y), (width - y, x), (width - x, height - y), (y, height - x)][turn]
        assert np.abs(np.stack(back, axis=1) - upright.landmarks).max() < 1e-6, path.name
        # Eyes above mouth, by the photo.
        assert upright.evidence > 4 and abs(upright.rotation) < 15


def test_missing_package_is_named(no_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeUnavailableError, match=r"which --aligned does .* pip install --no-deps mtcnn-runtime"):
        FaceDetector()


def test_the_wheel_alone_will_do(no_index: Path, detector: FaceDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched, and read without being installed, it finds what the installed one finds."""
    known = packages.FACE_DETECTOR
    if (folder := known.installed()) is None:
        pytest.skip(f"{known} is not installed")
    files = {f"{known.module}/{member}": (folder / member).read_bytes() for member in known.members}
    wheel = write_wheel(no_index, known.name, known.version, files)
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    made = replace(known, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(mtcnn, "FACE_DETECTOR", made)
    said: list[str] = []
    photo = astronaut()
    (one,), (other,) = FaceDetector(progress=said.append)(photo), detector(photo)
    assert np.array_equal(one.landmarks, other.landmarks)
    assert len(said) == 1 and said[0].startswith("fetching the package mtcnn-runtime 1.0.0 with pip, once, into ")


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
