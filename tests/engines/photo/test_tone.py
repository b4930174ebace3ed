from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.data import astronaut

from engines.photo import Alignment, FaceDetector, Tone, extract, ffhq_alignment, paste_back, read_tone
from engines.photo.tone import PLAIN

SEPIA = np.array([(0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131)])
"""The usual filter: every colour becomes a multiple of (1.35, 1.2, 0.94), cut off at 255."""
ALIGNMENT = Alignment(np.array([(30, 20), (30, 190), (200, 190), (200, 20)], float))


@pytest.fixture(scope="module")
def alignment() -> Alignment:
    return ffhq_alignment(FaceDetector()(astronaut())[0].landmarks)


def levels(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def grey(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def sepia(pixels: np.ndarray) -> np.ndarray:
    return levels(pixels @ SEPIA.T)


def cyanotype(pixels: np.ndarray) -> np.ndarray:
    bends = [(10, 60, 240), (25, 120, 245), (70, 170, 250)]
    return levels(np.stack([np.interp(grey(pixels)[:, :, 0], (0, 128, 255), bend) for bend in bends], axis=-1))


def coded(pixels: np.ndarray, kind: str, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def noisy(pixels: np.ndarray, most: int) -> np.ndarray:
    return levels(pixels + np.random.default_rng(0).integers(-most, most + 1, pixels.shape))


def edits(seed: int, size: int = 48, reach: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Colourful and smooth: an edited face and its reconstruction, `reach` levels around the middle."""
    coarse = np.random.default_rng(seed).integers(128 - reach, 128 + reach, (2, 6, 6, 3)).astype(np.uint8)
    edited, reconstruction = (np.asarray(Image.fromarray(one).resize((size, size))) for one in coarse)
    return edited, reconstruction


def spread(pixels: np.ndarray) -> int:
    """Levels between the largest and the least channel of a pixel, at most."""
    return int(np.ptp(pixels.astype(int), axis=2).max())


GREYS = {
    "equal channels": grey,
    "JPEG": lambda pixels: coded(grey(pixels), "JPEG", 60),
    "WebP": lambda pixels: coded(grey(pixels), "WEBP", 60),
    "noise": lambda pixels: noisy(grey(pixels), 2),
    "dark": lambda pixels: grey(pixels) // 4,
    "over-exposed": lambda pixels: levels(grey(pixels) * 1.7),
    "two levels": lambda pixels: (grey(pixels) > 110) * np.uint8(255),
}


@pytest.mark.parametrize("mode", ["detail", "replace"])
@pytest.mark.parametrize("kind", GREYS)
def test_a_black_and_white_photo_stays_so_to_the_bit(alignment: Alignment, kind: str, mode: str) -> None:
    photo = GREYS[kind](astronaut())
    tone = read_tone(extract(photo, alignment, 64))
    assert tone.grey and (tone.gain > 2) == (kind == "dark")
    edited, reconstruction = edits(0)
    result = paste_back(photo, edited, reconstruction, alignment, mode, tone)  # type: ignore[arg-type]
    assert spread(result) == 0
    change = result.astype(int) - photo
    assert (np.abs(change).max(axis=2) > 12).sum() > 1000
    outside = np.ones(photo.shape[:2], bool)
    left, top = np.floor(alignment.quad.min(axis=0)).astype(int)
    right, bottom = np.ceil(alignment.quad.max(axis=0)).astype(int)
    outside[max(top, 0) : bottom, max(left, 0) : right] = False
    # There, only the noise of the photo goes.
    assert np.abs(change[outside]).max() <= (5 if kind in ("WebP", "noise") else 0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), gain=st.floats(1, 20), mode=st.sampled_from(["detail", "replace"]))
def test_grey_in_grey_out_whatever_the_edit(seed: int, gain: float, mode: str) -> None:
    rng = np.random.default_rng(seed)
    photo = rng.integers(0, 256, (210, 220, 1), np.uint8).repeat(3, axis=2)
    tone = Tone(gain, read_tone(photo).line)
    edited, reconstruction = edits(seed)
    result = paste_back(photo, edited, reconstruction, ALIGNMENT, mode, tone)  # type: ignore[arg-type]
    assert tone.grey and spread(result) == 0 and (result != photo).any()
    same = paste_back(photo, edited, edited, ALIGNMENT, "detail", tone)
    assert (same == photo).all()


def test_what_is_put_back_is_the_luminance_of_the_change() -> None:
    photo = np.full((220, 220, 3), 120, np.uint8)
    reconstruction = np.full((32, 32, 3), 90, np.uint8)
    edited = np.full((32, 32, 3), (150, 90, 50), np.uint8)
    result = paste_back(photo, edited, reconstruction, ALIGNMENT, "detail", read_tone(photo))
    assert (result[105, 115] == round(120 + 0.299 * 60 - 0.114 * 40)).all()
    result = paste_back(photo, edited, reconstruction, ALIGNMENT, "replace", read_tone(photo))
    assert (result[105, 115] == round(0.299 * 150 + 0.587 * 90 + 0.114 * 50)).all()


@pytest.mark.parametrize("mode", ["detail", "replace"])
def test_a_grey_print_in_a_colour_photo(alignment: Alignment, mode: str) -> None:
    # The print reaches as far as the face; around it, and within the crop, lies a red table.
    photo = np.full((420, 420, 3), (170, 40, 30), np.uint8)
    photo[20:240, 130:330] = grey(astronaut())[20:240, 130:330]
    photo[20:240, 130:330] = noisy(photo[20:240, 130:330], 1)
    tone = read_tone(extract(photo, alignment, 64))
    assert tone.grey
    edited, reconstruction = edits(1)
    result = paste_back(photo, edited, reconstruction, alignment, mode, tone)  # type: ignore[arg-type]
    changed = (result != photo).any(axis=2)
    assert changed.sum() > 2000 and spread(result[60:160, 180:270]) == 0
    # The table stays red: what changes is its luminance.
    table = changed.copy()
    table[20:240, 130:330] = False
    inside = (result[table].astype(int) > 0).all(axis=1) & (result[table] < 255).all(axis=1)
    shifts = result[table].astype(int) - photo[table]
    assert np.ptp(shifts[inside], axis=1).max(initial=0) <= 1
    far = np.s_[300:, :]
    assert (result[far] == photo[far]).all()


TONED = {
    "sepia": sepia,
    "sepia, JPEG": lambda pixels: coded(sepia(pixels), "JPEG", 60),
    "sepia, WebP": lambda pixels: coded(sepia(pixels), "WEBP", 70),
    "faded sepia": lambda pixels: coded(levels(sepia(pixels) * 0.5 + 90), "JPEG", 85),
    "slight tint": lambda pixels: coded(levels(grey(pixels) + np.array((4.0, 0.0, -5.0))), "JPEG", 80),
    "cyanotype": lambda pixels: coded(cyanotype(pixels), "JPEG", 85),
    "selenium": lambda pixels: levels(255 * (grey(pixels) / 255) ** (0.85, 1.0, 1.12)),
}


@pytest.mark.parametrize("mode", ["detail", "replace"])
@pytest.mark.parametrize("kind", TONED)
def test_the_change_follows_the_line_of_a_toned_photo(alignment: Alignment, kind: str, mode: str) -> None:
    photo = TONED[kind](astronaut())
    for size in (64, 256):
        tone = read_tone(extract(photo, alignment, size))
        assert tone.line is not None and not tone.grey
    # The line as it was made, from a photo of all greys.
    ramp = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2).repeat(16, axis=1)
    exact = TONED[kind](ramp).astype(float).mean(axis=1)
    edited, reconstruction = edits(2, reach=40)

    def off_line(pixels: np.ndarray) -> np.ndarray:
        # A change may be brighter than the white of a faded photo, where the line was not made.
        pixels = pixels[pixels.max(axis=1) <= exact.max()]
        return np.abs(pixels[:, None, :] - exact).max(axis=2).min(axis=1)

    centre = np.s_[80:140, 200:250]
    result = paste_back(photo, edited, reconstruction, alignment, mode, tone)  # type: ignore[arg-type]
    old = paste_back(photo, edited, reconstruction, alignment, mode)  # type: ignore[arg-type]
    before, after, without = (np.quantile(off_line(one[centre].reshape(-1, 3)), 0.95) for one in (photo, result, old))
    assert (np.abs(result[centre].astype(int) - photo[centre]).max(axis=2) > 12).mean() > 0.5
    assert after <= before + 4 and without > after + 12


def test_photos_in_colour_are_left_alone(alignment: Alignment) -> None:
    for size in (64, 256):
        assert read_tone(extract(astronaut(), alignment, size)) is PLAIN
        faint = levels(grey(astronaut()) + 0.6 * (astronaut() - grey(astronaut()).astype(float)))
        assert read_tone(extract(faint, alignment, size)).line is None
        assert read_tone(extract(astronaut() // 4, alignment, size)).line is None


@pytest.mark.parametrize("mode", ["detail", "replace"])
@pytest.mark.parametrize("gain", [1.0, 2.5, 8.0])
def test_the_change_is_put_back_in_the_photos_own_light(gain: float, mode: str) -> None:
    photo = np.full((220, 220, 3), 20, np.uint8)
    reconstruction = levels(np.full((32, 32, 3), 20 * gain))
    edited = levels(reconstruction + np.array((40.0, -8.0, 16.0)))
    result = paste_back(photo, edited, reconstruction, ALIGNMENT, mode, Tone(gain))  # type: ignore[arg-type]
    assert np.abs(result[105, 115] - (20 + np.array((40.0, -8.0, 16.0)) / gain)).max() <= 0.51


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), gain=st.floats(1, 30))
def test_no_change_leaves_a_photo_of_any_light_as_it_is(seed: int, gain: float) -> None:
    photo = np.random.default_rng(seed).integers(0, 256, (210, 220, 3), np.uint8)
    edited, _ = edits(seed)
    assert (paste_back(photo, edited, edited, ALIGNMENT, "detail", Tone(gain)) == photo).all()
    # What the model cannot see for brightness is not pulled down to what it can.
    photo[:] = 255
    white = np.full((32, 32, 3), 255, np.uint8)
    assert (paste_back(photo, white, white, ALIGNMENT, "replace", Tone(gain)) == 255).all()


@given(level=st.integers(0, 255))
def test_faces_are_lifted_by_how_dark_they_are(level: int) -> None:
    face = np.full((16, 16, 3), level, np.uint8)
    face[:, :, 0] = np.clip(level + np.arange(16) * 2, 0, 255)
    gain, above = read_tone(face).gain, read_tone(np.minimum(face, 254) + 1).gain
    assert gain >= above >= 1
    if level > 112:
        assert gain == 1
    if 6 <= level < 70:
        brightest = np.quantile((face @ (0.299, 0.587, 0.114))[5:13, 5:11], 0.9)
        assert gain == pytest.approx(192 / brightest, rel=0.05)
    assert gain <= 32


def test_a_picture_is_shown_in_the_tone_of_a_photo_that_is_not_there(alignment: Alignment) -> None:
    face = extract(astronaut(), alignment, 64)
    picture = edits(3, 64)[0]
    assert PLAIN.shown(picture) is picture and read_tone(face).shown(picture) is picture
    for kind in ("equal channels", "JPEG", "dark"):
        tone = read_tone(GREYS[kind](face))
        shown = tone.shown(picture)
        assert shown.dtype == np.uint8 and spread(shown) == 0
        wanted = picture @ np.array([0.299, 0.587, 0.114]) / tone.gain
        assert np.abs(shown[:, :, 0] - wanted).max() <= 0.501
    dark = read_tone(face // 4)
    assert dark.gain > 3 and dark.line is None
    assert np.abs(dark.shown(picture) - picture / dark.gain).max() <= 0.501
    # The colours of a toned photo, each at the luminance of the picture.
    for toned in (sepia, cyanotype):
        tone = read_tone(toned(face))
        assert tone.line is not None and not tone.grey
        shown = tone.shown(toned(picture))
        assert np.abs(shown.astype(int) - toned(picture)).mean() < 4
        assert read_tone(tone.shown(edits(3, 64, 60)[0])).line is not None


def test_a_picture_is_shown_as_with_the_photo_where_its_light_is_not_cut_off(alignment: Alignment) -> None:
    face = extract(astronaut(), alignment, 64)
    picture = edits(5, 64)[0]
    for photo in (grey(face), grey(face) // 4, face // 4):
        tone = read_tone(photo)
        everywhere = np.ones((64, 64), np.float32)
        base = photo.astype(np.float32)
        known = tone.changed(base, picture - tone.lift(base), everywhere).clip(0, 255)
        inside = (photo * tone.gain < 255).all(axis=2)
        assert inside.mean() > 0.8
        assert np.abs(tone.shown(picture)[inside] - known[inside]).max() <= 0.501


def test_a_tone_is_written_and_read_exactly(alignment: Alignment) -> None:
    face = extract(astronaut(), alignment, 64)
    for photo in (face, face // 4, grey(face), sepia(face), sepia(face) // 3):
        tone = read_tone(photo)
        again = Tone.from_json(json.loads(json.dumps(tone.to_json())))
        assert again.gain == tone.gain and again.grey == tone.grey
        assert (again.line is None) == (tone.line is None)
        assert tone.line is None or np.array_equal(again.line, tone.line)


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {},
        {"gain": 1},
        {"gain": "much", "line": None},
        {"gain": 0.5, "line": None},
        {"gain": 1e9, "line": None},
    ]
    + [{"gain": 1.0, "line": line} for line in ("x", [1.0], [[1.0, 2.0, 3.0]], [[float("nan")] * 3] * 640)],
)
def test_what_is_no_tone_is_not_read_as_one(told: object) -> None:
    with pytest.raises(ValueError, match="light and colours"):
        Tone.from_json(told)


@pytest.mark.parametrize("kind", ["colour", "sepia", "dark"])
def test_a_large_face_has_the_tone_of_a_small_one(alignment: Alignment, kind: str) -> None:
    photo = {"colour": astronaut(), "sepia": sepia(astronaut()), "dark": astronaut() // 4}[kind]
    small, large = (read_tone(extract(photo, alignment, size)) for size in (256, 1024))
    assert (small.line is None) == (large.line is None) == (kind != "sepia")
    assert large.gain == pytest.approx(small.gain, rel=0.02)
    if small.line is not None and large.line is not None:
        assert np.abs(small.line - large.line)[128:384].max() < 4
