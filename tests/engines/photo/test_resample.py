"""Against Pillow, which rounds to whole levels after each axis."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from engines.photo.resample import Filter, resampling, resize

PILLOW = {"area": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
FILTERS = pytest.mark.parametrize("kind", PILLOW)


def picture(height: int, width: int) -> np.ndarray:
    """Noise of full contrast: black, white and a few levels between, where a filter overshoots most."""
    return np.random.default_rng(height + width).choice([0, 0, 90, 255, 255], (height, width, 3)).astype(np.uint8)


@FILTERS
@pytest.mark.parametrize(("source", "target"), [(64, 16), (48, 16), (512, 256), (40, 16), (16, 40), (64, 48), (3, 1)])
def test_an_axis_is_pillows_but_for_rounding(kind: Filter, source: int, target: int) -> None:
    matrix = resampling(source, target, kind)
    assert matrix.shape == (target, source)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-12)
    filtered = PILLOW["bilinear" if kind == "area" and source % target else kind]
    levels = picture(8, source)
    wanted = np.asarray(Image.fromarray(levels).resize((target, 8), filtered), np.float64)
    made = np.clip(np.einsum("hwc,tw->htc", levels, matrix), 0, 255)
    assert np.abs(made - wanted).max() <= 0.5 + 1e-3


@FILTERS
@pytest.mark.parametrize(("source", "target"), [((64, 64), (16, 16)), ((48, 64), (24, 32)), ((30, 30), (12, 20))])
def test_a_photo_is_pillows_but_for_rounding(kind: Filter, source: tuple[int, int], target: tuple[int, int]) -> None:
    levels = picture(*source)
    made = resize(levels.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1, target, kind)
    assert made.shape == (1, 3, *target) and made.dtype == np.float32
    filtered = PILLOW["bilinear" if kind == "area" and source == (30, 30) else kind]
    wanted = np.asarray(Image.fromarray(levels).resize(target[::-1], filtered), np.float64)
    gap = np.abs((made[0].transpose(1, 2, 0) + 1) * 127.5 - wanted)
    # Half a level for each of the two roundings; on average a quarter of that is left of one.
    assert gap.max() <= 1.15 and gap.mean() < 0.5


def test_a_size_that_is_right_is_left_alone() -> None:
    images = np.zeros((1, 3, 16, 8), np.float32)
    assert resize(images, (16, 8), "bicubic") is images


def test_a_bicubic_filter_stays_between_black_and_white() -> None:
    edge = np.repeat(np.float32([-1, 1]), 32).reshape(1, 1, 1, 64).repeat(64, axis=2)
    made = resize(edge, (16, 16), "bicubic")
    assert made.min() == -1 and made.max() == 1
    assert (edge[0, 0, 0] @ resampling(64, 16, "bicubic").T).max() > 1.01
