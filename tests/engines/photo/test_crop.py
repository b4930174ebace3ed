from __future__ import annotations

import numpy as np
import pytest

from engines.errors import ImageError
from engines.photo import Cropper, Photo

PHOTO = Photo(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))


def test_a_framed_image_is_brought_to_the_models_shape_and_lies_nowhere() -> None:
    crop, alignment = Cropper()(PHOTO, (12, 16), aligned=True)
    assert crop.shape == (12, 16, 3) and alignment is None
    crop[0] = 0
    square = Photo(PHOTO.pixels[:, :24])
    crop, alignment = Cropper()(square, (24, 24), aligned=True)
    assert np.array_equal(crop, square.pixels) and alignment is None


def test_what_cannot_be_cropped_names_the_model() -> None:
    with pytest.raises(ImageError, match="family cars is not of faces"):
        Cropper()(PHOTO, (12, 16), model="family cars")
    with pytest.raises(ImageError, match="an aligned face must be square, this image is 32x24"):
        Cropper()(PHOTO, (16, 16), aligned=True)
