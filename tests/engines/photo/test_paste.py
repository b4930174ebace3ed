from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import astronaut

from engines.errors import ImageError
from engines.photo import Alignment, extract, feather, paste_back, paste_mode


def square(centre: tuple[float, float], side: float, degrees: float = 0.0) -> Alignment:
    c, s = math.cos(math.radians(degrees)) * side / 2, math.sin(math.radians(degrees)) * side / 2
    across, down = np.array([c, s]), np.array([-s, c])
    middle = np.array(centre)
    return Alignment(
        np.stack([middle - across - down, middle - across + down, middle + across + down, middle + across - down])
    )


def mask_of(alignment: Alignment, shape: tuple[int, int]) -> np.ndarray:
    matrix = alignment.photo_to_crop(2)
    x, y = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    return feather(*(row[0] * x + row[1] * y + row[2] - 1 for row in matrix[:2]))


@settings(max_examples=20, deadline=None)
@given(
    x=st.floats(-50, 300), y=st.floats(-50, 300), side=st.floats(30, 500), degrees=st.floats(-180, 180),
    size=st.sampled_from([32, 64, 200]),
)  # fmt: skip
def test_unedited_crop_in_detail_mode_returns_the_photo(
    x: float, y: float, side: float, degrees: float, size: int
) -> None:
    photo = astronaut()[:240, 100:360]
    alignment = square((x, y), side, degrees)
    crop = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    result = paste_back(photo, crop, crop, alignment, "detail")
    assert (result == photo).all() and result is not photo


@pytest.mark.parametrize("mode", ["detail", "replace"])
@pytest.mark.parametrize(
    "alignment", [square((130, 110), 150, 20), square((10, 200), 300, -35), square((120, 120), 40)]
)
def test_pixels_without_mask_are_untouched(mode: str, alignment: Alignment) -> None:
    photo = astronaut()[:240, 100:360].copy()
    before = photo.copy()
    rng = np.random.default_rng(0)
    edited, reconstruction = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    result = paste_back(photo, edited, reconstruction, alignment, mode)
    mask = mask_of(alignment, photo.shape[:2])
    assert (photo == before).all()
    assert (result[mask == 0] == photo[mask == 0]).all()
    assert (result[mask == 1] != photo[mask == 1]).any(axis=1).mean() > 0.9


def test_mask_is_feathered_inside_the_crop() -> None:
    line = np.linspace(-1, 1, 401)
    x, y = np.meshgrid(line, line)
    mask = feather(x, y)
    assert mask[200, 200] == 1 and mask.min() == 0 and mask.max() == 1
    assert mask[0].max() == mask[-1].max() == mask[:, 0].max() == mask[:, -1].max() == 0
    assert np.abs(np.diff(mask, axis=1)).max() < 0.04  # no visible edge
    assert (mask == mask[::-1]).all() and np.allclose(mask, mask.T)
    assert (mask > 0.99)[np.hypot(x, y) < 0.6].all()  # the face itself takes the whole edit


@pytest.mark.parametrize("size", [16, 64, 300])
@pytest.mark.parametrize("mode", ["detail", "replace"])
def test_constant_change_arrives_in_full(size: int, mode: str) -> None:
    photo = np.full((200, 220, 3), 100, np.uint8)
    alignment = square((105, 95), 120, 12)
    reconstruction = np.full((size, size, 3), 100, np.uint8)
    edited = np.full((size, size, 3), (130, 80, 100), np.uint8)
    result = paste_back(photo, edited, reconstruction, alignment, mode).astype(int) - 100
    mask = mask_of(alignment, (200, 220))
    assert np.abs(result - mask[:, :, None] * (30, -20, 0)).max() <= 0.51


def test_detail_keeps_texture_that_the_crop_cannot_hold() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(60, 190, (256, 256, 3), dtype=np.uint8)  # finest texture
    alignment = square((128, 128), 200)
    crop = extract(photo, alignment, 32)
    edited = (crop + 20).astype(np.uint8)
    centre = np.s_[90:166, 90:166]
    detail = paste_back(photo, edited, crop, alignment, "detail")
    replace = paste_back(photo, edited, crop, alignment, "replace")
    assert np.abs(detail[centre].astype(int) - photo[centre] - 20).max() <= 1
    assert replace[centre].std() < 0.5 * photo[centre].std()


@pytest.mark.parametrize("degrees", [0, 30])
@pytest.mark.parametrize("size", [100, 240, 480])
def test_replace_puts_the_crop_where_it_came_from(degrees: float, size: int) -> None:
    y, x = np.mgrid[:240, :240] + 0.5
    smooth = 128 + 60 * np.sin(x / 14) + 60 * np.cos(y / 17)
    photo = np.rint(smooth).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    alignment = square((117.3, 122.8), 120, degrees)
    crop = extract(photo, alignment, size)
    result = paste_back(photo, crop, crop, alignment, "replace")
    difference = result.astype(float)[80:160, 80:160, 0] - photo[80:160, 80:160, 0]
    assert np.abs(difference).max() <= 2
    for slope in (np.cos(x / 14) * 60 / 14, -np.sin(y / 17) * 60 / 17):
        slope = slope[80:160, 80:160]
        shift = (difference * slope).sum() / (slope**2).sum()
        assert abs(shift) < 0.02  # photo pixels


def test_large_crop_is_low_passed_before_it_shrinks() -> None:
    photo = np.full((100, 100, 3), 128, np.uint8)
    board = (np.indices((400, 400)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    result = paste_back(photo, board, board, square((50, 50), 83.3, 9), "replace")
    assert np.abs(result.astype(int) - 128).max() <= 6


def test_auto_chooses_by_scale() -> None:
    assert paste_mode(square((0, 0), 300), 64) == "detail"
    assert paste_mode(square((0, 0), 300), 1024) == "replace"
    photo = astronaut()
    rng = np.random.default_rng(0)
    edited, reconstruction = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for side, mode in ((200, "detail"), (50, "replace")):
        alignment = square((200, 200), side)
        expected = paste_back(photo, edited, reconstruction, alignment, mode)
        assert (paste_back(photo, edited, reconstruction, alignment) == expected).all()


def test_values_saturate_instead_of_wrapping() -> None:
    photo = np.full((100, 100, 3), 240, np.uint8)
    edited, reconstruction = np.full((32, 32, 3), 200, np.uint8), np.full((32, 32, 3), 100, np.uint8)
    result = paste_back(photo, edited, reconstruction, square((50, 50), 80), "detail")
    assert result[50, 50, 0] == 255 and result.min() == 240


def test_wrong_arguments() -> None:
    photo, crop = np.zeros((64, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)
    alignment = square((32, 32), 40)
    with pytest.raises(ImageError, match="square"):
        paste_back(photo, crop[:20], crop, alignment)
    with pytest.raises(ImageError, match="must be equal"):
        paste_back(photo, crop, crop[:16, :16], alignment, "detail")
    with pytest.raises(ValueError, match="mode"):
        paste_back(photo, crop, crop, alignment, "blend")
