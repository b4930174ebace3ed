"""Photos of other light and colours than the model's, from the file to the edited picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgedit.editor import PORTRAIT_BUNDLE, Editor, Portrait
from edgedit.sheet import CELL, GAP, LABEL
from engines.inversion import Inversion
from engines.photo import PasteMode, open_image
from tests.edgedit.conftest import Cli

pytestmark = pytest.mark.filterwarnings("ignore::engines.errors.StrengthWarning")

SMILE = {"smile": 4.5}
MODES: list[PasteMode] = ["detail", "replace"]


@pytest.fixture(scope="module")
def demo() -> Editor:
    if not PORTRAIT_BUNDLE.is_dir():
        pytest.skip("the portrait bundle is not here")
    return Editor.load(threads=1)


@pytest.fixture(scope="module")
def lit(demo: Editor, head: np.ndarray) -> Portrait:
    return demo.portrait(head)


@pytest.fixture(scope="module")
def dark(demo: Editor, head: np.ndarray) -> Portrait:
    """The same photo at a quarter of its brightness."""
    return demo.portrait(np.rint(head / 4).astype(np.uint8))


def spread(pixels: np.ndarray) -> int:
    """Levels between the largest and the least channel of a pixel, at most."""
    return int(np.ptp(pixels.astype(int), axis=2).max())


def grey_palette(image: Image.Image) -> Image.Image:
    paletted = Image.fromarray(np.asarray(image) // 2)
    paletted.putpalette([level for grey in range(128) for level in (2 * grey,) * 3])
    return paletted


def with_opacity(image: Image.Image) -> Image.Image:
    return Image.merge("LA", (image, Image.new("L", image.size, 200)))


FILES: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "L": ("PNG", lambda image: image),
    "LA": ("PNG", with_opacity),
    "16 bits": ("PNG", lambda image: Image.fromarray(np.asarray(image).astype(np.uint16) * 257)),
    "palette": ("PNG", grey_palette),
    "grey JPEG": ("JPEG", lambda image: image),
    "RGB JPEG": ("JPEG", lambda image: image.convert("RGB")),
    "WebP": ("WEBP", lambda image: image.convert("RGB")),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_grey_file_stays_grey(
    cli: Cli, bundle_path: Path, head: np.ndarray, tmp_path: Path, kind: str
) -> None:
    file_format, made = FILES[kind]
    photo, out = tmp_path / f"photo.{file_format.lower()}", tmp_path / "out.png"
    made(Image.fromarray(head).convert("L")).save(photo, file_format)
    for mode in MODES:
        words = ("-b", bundle_path, "--threads", 1, "-o", out, "--paste", mode, "-d", "smile:3")
        assert cli("edit", photo, *words).status == 0
        assert spread(open_image(out).pixels) == 0
        assert (np.abs(open_image(out).pixels.astype(int) - open_image(photo).pixels).max(axis=2) > 8).mean() > 0.01


def test_an_aligned_grey_face_stays_grey(cli: Cli, demo: Editor, head: np.ndarray, tmp_path: Path) -> None:
    grey = demo.portrait(np.asarray(Image.fromarray(head).convert("L").convert("RGB"))).aligned
    assert spread(demo.edit_photo(grey, SMILE, aligned=True)) == 0
    inversion = demo.invert(grey, aligned=True)
    assert spread(demo.edit(inversion, SMILE)) == spread(demo.reconstruct(inversion)) == 0
    # By itself the model colours it.
    assert spread(demo.render(inversion, SMILE)) > 20
    Image.fromarray(grey).save(tmp_path / "face.png")
    words = ("--aligned", "--threads", 1, "-o", tmp_path / "out.png")
    assert cli("reconstruct", tmp_path / "face.png", *words).status == 0
    assert spread(open_image(tmp_path / "out.png").pixels) == 0
    assert cli("demo", tmp_path / "face.png", *words, "-d", "smile").status == 0
    # The first edit of the sheet's second row; the frame of the face is drawn in the first.
    top = GAP + CELL + LABEL + GAP
    assert spread(open_image(tmp_path / "out.png").pixels[top : top + CELL, GAP : GAP + CELL]) == 0


@pytest.mark.parametrize("mode", MODES)
def test_the_edit_of_a_dark_photo_is_the_dark_edit_of_the_photo(lit: Portrait, dark: Portrait, mode: PasteMode) -> None:
    error = np.abs(dark.edit(SMILE, mode=mode) * 4.0 - lit.edit(SMILE, mode=mode))
    assert dark.cut.tone.gain > 3
    # In levels of the photo in full light.
    assert error.mean() < 3 and np.quantile(error, 0.99) < 16


def test_a_dark_aligned_face_comes_back_dark(demo: Editor, lit: Portrait) -> None:
    bright = demo.edit_photo(lit.aligned, SMILE, aligned=True).astype(float)
    dark = demo.edit_photo(lit.aligned // 4, SMILE, aligned=True)
    assert np.abs(dark * 4.0 - bright).mean() < 8 and dark.max() <= 80


@pytest.fixture(scope="module")
def upright(lit: Portrait) -> np.ndarray:
    return lit.edit(SMILE).astype(int)


@pytest.mark.parametrize("tint", ["grey", "dark"])
def test_an_edit_of_an_inversion_has_its_photos_light_and_colours(
    demo: Editor, head: np.ndarray, tmp_path: Path, tint: str
) -> None:
    face = demo.portrait(head).aligned
    face = np.asarray(Image.fromarray(face).convert("L").convert("RGB")) if tint == "grey" else face // 4
    portrait = demo.portrait(face, aligned=True)
    portrait.inversion.save(tmp_path / "face")
    inversion = Inversion.load(tmp_path / "face")
    seen = (face * inversion.tones[0].gain < 255).all(axis=2)
    assert seen.mean() > 0.9
    # Up to a rounding, but for what was too bright for the model's light.
    edited = demo.edit(inversion, SMILE)
    assert np.abs(edited - portrait.edit(SMILE).astype(int))[seen].max() <= 1
    assert np.abs(demo.reconstruct(inversion) - portrait.reconstruct().astype(int))[seen].max() <= 1
    assert np.array_equal(next(demo.sweep(inversion, *SMILE, *SMILE.values(), *SMILE.values(), 1))[1], edited)
    # The arrays alone know nothing of it.
    bare = Inversion({name: inversion.array(name) for name in inversion.names})
    assert np.array_equal(inversion.tones[0].shown(demo.edit(bare, SMILE)), edited)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_photo_is_edited_as_the_upright_one(
    demo: Editor, head: np.ndarray, upright: np.ndarray, turn: int
) -> None:
    turned = demo.edit_photo(np.ascontiguousarray(np.rot90(head, turn)), SMILE)
    error = np.abs(np.rot90(turned, -turn) - upright)
    assert error.max() <= 12 and error.mean() < 0.2


def test_portraits_of_the_shared_folder(demo: Editor, shared: Path) -> None:
    for path in sorted((shared / "photos").glob("*.jpg"))[::3]:
        photo = open_image(path).pixels
        grey = io.BytesIO()
        Image.fromarray(photo).convert("L").convert("RGB").save(grey, "JPEG", quality=80)
        portrait = demo.portrait(grey.getvalue())
        for mode in MODES:
            assert spread(portrait.edit(SMILE, mode=mode)) == 0, path.name
        tone = demo.portrait(photo).cut.tone
        assert tone.line is None and tone.gain == 1, path.name
