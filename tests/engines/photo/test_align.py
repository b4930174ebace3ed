from __future__ import annotations

import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.data import astronaut

from engines.errors import ImageError
from engines.photo import Alignment, FaceDetector, align, aligned_square, extract, ffhq_alignment, open_image

# Eyes one unit apart, mouth one unit below: half the crop is max(2 * 1, 1.8 * 1) = 2 units, its centre 0.1 below the
# eyes, so the eyes lie at (0.5 -+ 0.5/4, 0.5 - 0.1/4) and the mouth corners at (0.5 -+ 0.4/4, 0.5 + 0.9/4).
FACE = np.array([[-0.5, 0], [0.5, 0], [0.05, 0.6], [-0.4, 1], [0.4, 1]])
CANONICAL = np.array([[0.375, 0.475], [0.625, 0.475], [0.5125, 0.625], [0.4, 0.725], [0.6, 0.725]])

angles = st.floats(-180, 180)
offsets = st.tuples(st.floats(-500, 500), st.floats(-500, 500))


def placed(scale: float, degrees: float, centre: tuple[float, float]) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return FACE @ np.array([[c, s], [-s, c]]) * scale + centre


def transformed(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


@given(scale=st.floats(3, 3000), degrees=angles, centre=offsets, size=st.sampled_from([64, 256, 1024]))
def test_landmarks_land_at_canonical_positions(
    scale: float, degrees: float, centre: tuple[float, float], size: int
) -> None:
    points = placed(scale, degrees, centre)
    alignment = ffhq_alignment(points)
    assert np.abs(transformed(alignment.photo_to_crop(size), points) - CANONICAL * size).max() < 1e-6 * size
    assert alignment.side == pytest.approx(4 * scale)
    assert math.cos(math.radians(alignment.rotation - degrees)) == pytest.approx(1)
    corners = np.array([[0, 0], [0, size], [size, size], [size, 0]], float)
    assert np.abs(transformed(alignment.crop_to_photo(size), corners) - alignment.quad).max() < 1e-6 * scale


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(20, 90),
    degrees=angles,
    x=st.floats(140, 260),
    y=st.floats(140, 260),
    size=st.sampled_from([64, 128]),
)
def test_pixels_follow_the_geometry(scale: float, degrees: float, x: float, y: float, size: int) -> None:
    points = placed(scale, degrees, (x, y))
    assume((points > 20).all() and (points < 380).all())
    rows, columns = np.mgrid[:400, :400] + 0.5
    sigma = max(3.0, 4 * scale / size)
    photo = np.zeros((400, 400))
    for px, py in points:
        photo = np.maximum(photo, np.exp(-((columns - px) ** 2 + (rows - py) ** 2) / (2 * sigma**2)))
    crop, alignment = align(np.rint(photo * 255).astype(np.uint8)[:, :, None].repeat(3, axis=2), points, size)
    assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
    radius = math.ceil(2 * sigma * size / alignment.side)
    for cx, cy in CANONICAL * size:
        # Centroid of the blob, in continuous coordinates.
        left, top = round(cx) - radius, round(cy) - radius
        window = crop[top : top + 2 * radius, left : left + 2 * radius, 0].astype(float)
        window = window.clip(40) - 40
        across = (window.sum(0) @ (np.arange(2 * radius) + left + 0.5)) / window.sum()
        down = (window.sum(1) @ (np.arange(2 * radius) + top + 0.5)) / window.sum()
        assert abs(across - cx) < 1 and abs(down - cy) < 1


def test_the_longer_of_the_two_spans_holds() -> None:
    profile = FACE * (0.5, 1)  # eyes close together, as in a turned head
    assert ffhq_alignment(profile * 100).side == pytest.approx(2 * 180)


def smooth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 128 + 55 * np.sin(x / 14) + 55 * np.cos(y / 17)


@pytest.mark.parametrize("degrees", [0, 45, -130])
@pytest.mark.parametrize("size", [40, 100, 128, 240, 480])
def test_values_are_those_of_the_photo(degrees: float, size: int) -> None:
    rows, columns = np.mgrid[:240, :240] + 0.5
    photo = np.rint(smooth(columns, rows)).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    alignment = ffhq_alignment(placed(30, degrees, (117.3, 119.8)))
    crop = extract(photo, alignment, size).astype(float)
    points = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1)
    exact = smooth(*np.moveaxis(transformed(alignment.crop_to_photo(size), points), -1, 0))
    difference = crop - exact[:, :, None]
    assert abs(difference.mean()) < 0.1 and np.abs(difference).max() < 2.5


def test_sharpness_survives_a_crop_of_the_photos_own_scale() -> None:
    photo = astronaut()[:300, 100:400]
    quad = np.array([[40, 30], [40, 158], [168, 158], [168, 30]], float)
    crop, original = extract(photo, Alignment(quad), 128).astype(float), photo[30:158, 40:168].astype(float)
    assert np.abs(crop - original).mean() < 1.5
    assert np.diff(crop, axis=1).std() > 0.9 * np.diff(original, axis=1).std()


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_downscaling_is_antialiased(factor: int) -> None:
    # A one-pixel checkerboard has no detail left at half the size: anything but flat grey is aliasing.
    side = 64 * factor
    board = (np.indices((side + 40, side + 40)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    quad = np.array([[20, 20], [20, 20 + side], [20 + side, 20 + side], [20 + side, 20]], float)
    crop = extract(board, Alignment(quad), 64)
    assert np.abs(crop.astype(int) - 127.5).max() < 8


@pytest.mark.parametrize("scale", [30.0, 100.0, 400.0])
def test_outside_is_filled_by_reflection(scale: float) -> None:
    photo = np.full((300, 300, 3), (200, 90, 30), np.uint8)
    for centre in ((5.0, 5.0), (295.0, 150.0), (150.0, 290.0)):
        crop, alignment = align(photo, placed(scale, 17, centre), 64)
        assert (alignment.quad < 0).any() or (alignment.quad > 300).any()
        assert (crop == (200, 90, 30)).all()


def test_reflection_is_continuous_at_the_border() -> None:
    ramp = np.linspace(0, 255, 200).astype(np.uint8)[None, :, None].repeat(200, axis=0).repeat(3, axis=2)
    quad = np.array([[-60, 40], [-60, 140], [40, 140], [40, 40]], float)
    row = extract(ramp, Alignment(quad), 100)[50, :, 0].astype(int)
    assert np.abs(row[:60][::-1][:40] - row[60:]).max() <= 2 and np.abs(np.diff(row)).max() <= 3


def test_crop_outside_the_photo_is_refused() -> None:
    with pytest.raises(ImageError, match="outside the photo"):
        align(np.zeros((100, 100, 3), np.uint8), placed(10, 0, (500, 50)), 64)


@pytest.mark.parametrize(
    "points",
    [np.zeros((5, 2)), np.zeros((4, 2)), np.full((5, 2), np.nan), FACE * 0.5, FACE * 1e6],
    ids=["one point", "four points", "nan", "tiny", "huge"],
)
def test_impossible_landmarks(points: np.ndarray) -> None:
    with pytest.raises(ImageError, match="landmarks"):
        ffhq_alignment(points)


def test_aligned_square() -> None:
    photo = astronaut()
    assert (aligned_square(photo, 512) == photo).all()
    assert aligned_square(photo[:511], 64).shape == (64, 64, 3)
    reference = np.asarray(Image.fromarray(photo).resize((64, 64), Image.Resampling.LANCZOS))
    assert (aligned_square(photo, 64) == reference).all()
    with pytest.raises(ImageError, match="512x500; drop --aligned"):
        aligned_square(photo[:500], 64)


def test_astronaut_eyes_are_where_the_training_data_has_them() -> None:
    detector = FaceDetector()
    photo = astronaut()
    (face,) = detector(photo)
    crop, _ = align(photo, face.landmarks, 256)
    (again,) = detector(crop)
    # Mean over 799 aligned faces: (0.377, 0.474) and (0.624, 0.474).
    assert np.abs(again.landmarks[0] / 256 - (0.377, 0.474)).max() < 0.02
    assert np.abs(again.landmarks[1] / 256 - (0.624, 0.474)).max() < 0.02


def test_no_bias_against_the_training_alignment(shared: Path) -> None:
    detector = FaceDetector()
    errors = []
    with tarfile.open(shared / "data" / "faces256.tar") as tar:
        members = sorted((m for m in tar if m.name.endswith(".webp")), key=lambda m: m.name)
        for member in members[:: len(members) // 40]:
            stream = tar.extractfile(member)
            assert stream is not None
            face = detector(open_image(stream.read()).pixels)[0]
            alignment = ffhq_alignment(face.landmarks)
            x, y = (alignment.quad.mean(axis=0) - 128) / 256
            errors.append((x, y, alignment.side / 256 - 1, alignment.rotation))
    mean, scatter = np.mean(errors, axis=0), np.std(errors, axis=0)
    assert np.abs(mean[:2]).max() < 0.005 and abs(mean[2]) < 0.015 and abs(mean[3]) < 0.5
    assert scatter[:2].max() < 0.01 and scatter[2] < 0.05 and scatter[3] < 1.5
