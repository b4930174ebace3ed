from __future__ import annotations

import numpy as np
import pytest
from skimage.data import astronaut

from engines.errors import ImageError, NoFaceError
from engines.photo import Cropper, Photo

PHOTO = Photo(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))


@pytest.fixture(scope="module")
def cropper() -> Cropper:
    return Cropper()


def test_a_framed_image_is_brought_to_the_models_shape_and_lies_nowhere() -> None:
    cut = Cropper()(PHOTO, (12, 16), aligned=True)
    assert cut.crop.shape == (12, 16, 3) and cut.alignment is None
    square = Photo(PHOTO.pixels[:, :24])
    cut = Cropper()(square, (24, 24), aligned=True)
    assert np.array_equal(cut.crop, square.pixels) and cut.alignment is None
    cut.crop[0] = 0
    assert square.pixels[0].any()


def test_what_cannot_be_cropped_names_the_model() -> None:
    with pytest.raises(ImageError, match="family cars is not of faces"):
        Cropper()(PHOTO, (12, 16), model="family cars")
    with pytest.raises(ImageError, match="an aligned face must be square, this image is 32x24"):
        Cropper()(PHOTO, (16, 16), aligned=True)


def darker(pixels: np.ndarray, share: float) -> Photo:
    return Photo(np.rint(pixels * share).astype(np.uint8))


# Without the lift, the crop of the second is 10 % too large, and in the last no face is found.
@pytest.mark.parametrize("share", [0.25, 0.12, 0.06])
def test_a_dark_photo_gives_the_crop_of_the_light_one(cropper: Cropper, share: float) -> None:
    light = cropper(Photo(astronaut()), (64, 64))
    dark = cropper(darker(astronaut(), share), (64, 64))
    assert light.tone.gain == 1 and light.alignment is not None and dark.alignment is not None
    assert np.abs(dark.alignment.quad - light.alignment.quad).max() < 0.01 * light.alignment.side
    assert dark.alignment.side == pytest.approx(light.alignment.side, rel=0.005)
    # It is brought to the light of the training data, whatever that of the photo was.
    level = np.quantile(dark.crop[20:50, 18:46] @ (0.299, 0.587, 0.114), 0.9)
    assert 180 < level < 205
    assert np.abs(dark.face / share - light.face).mean() < 0.75 / share


def test_a_dark_face_beside_a_bright_window_is_lifted_by_its_own_light(cropper: Cropper) -> None:
    photo = astronaut() // 4
    photo[:, 330:] = 250
    dark, window = cropper(Photo(astronaut() // 4), (64, 64)), cropper(Photo(photo), (64, 64))
    assert window.tone.gain == pytest.approx(dark.tone.gain, rel=0.05) and window.tone.gain > 3


@pytest.mark.parametrize("value", [0, 3, 40])
def test_a_dark_photo_without_a_face_has_none(cropper: Cropper, value: int) -> None:
    with pytest.raises(NoFaceError, match="no face found in the photo, whichever way up"):
        cropper(Photo(np.full((120, 90, 3), value, np.uint8)), (64, 64))


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_photo_gives_the_crop_of_the_upright_one(cropper: Cropper, turn: int) -> None:
    photo = np.ascontiguousarray(astronaut()[:300, 60:420])
    upright = cropper(Photo(photo), (64, 64))
    turned = cropper(Photo(np.ascontiguousarray(np.rot90(photo, turn))), (64, 64))
    assert turned.alignment is not None and upright.alignment is not None
    # Its upper edge lies where the photo's was turned to, counter-clockwise.
    turned_by = (upright.alignment.rotation - turned.alignment.rotation) % 360
    assert turned_by == pytest.approx(90 * turn, abs=0.01)
    # Resampled along other axes: the same to within rounding.
    assert np.abs(turned.crop.astype(int) - upright.crop).max() <= 3
    assert np.abs(turned.crop.astype(int) - upright.crop).mean() < 0.25
