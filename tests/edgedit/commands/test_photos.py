from __future__ import annotations

import os
import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgedit.editor import Editor
from edgedit.sheet import CELL, GAP, LABEL, LARGE, WIDTH
from engines.bundle import WEIGHTS_FILE
from engines.photo import open_image
from tests.edgedit.commands.conftest import Edits
from tests.edgedit.conftest import FACES, write_faces

SMILE = ("-d", "smile:2")


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says that it is this large."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 100)))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_edit_is_the_python_edit(edits: Edits, editor: Editor, head_path: Path) -> None:
    done = edits(head_path, "--direction", "smile", "--strength", "2", "--direction", "age:-1")
    assert (done.status, done.err) == (0, "")
    assert np.array_equal(edits.pixels, editor.edit_photo(head_path, {"smile": 2.0, "age": -1.0}))
    assert edits.written == ["out.json", "out.png"]
    assert edits.summary == {
        "out": str(edits.out),
        "width": 260,
        "height": 260,
        "bundle": edits.summary["bundle"],
        "credentials": edits.summary["credentials"],
        "edits": {"smile": 2.0, "age": -1.0},
        "photo": str(head_path),
        "warnings": [],
    }
    assert "smile +2, age -1" in done.out and "out.png (260x260)" in done.out


def test_a_direction_may_be_a_file(edits: Edits, editor: Editor, head_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    replace(editor.directions["smile"], name="grin", max_strength=9.0).save(file)
    done = edits(head_path, "-d", f"{file}:2", "-d", "age:-1")
    assert (done.status, done.err) == (0, "")
    assert edits.summary["edits"] == {"grin": 2.0, "age": -1.0}
    assert np.array_equal(edits.pixels, editor.edit_photo(head_path, {"smile": 2.0, "age": -1.0}))
    replace(editor.directions["smile"], name="age").save(file)
    assert "two of these directions have the same name" in edits(head_path, "-d", f"{file}:2", "-d", "age:1").error
    assert "cannot read" in edits(head_path, "-d", f"{tmp_path}/none.safetensors:1").error


def test_negative_strengths(edits: Edits, editor: Editor, head_path: Path) -> None:
    assert edits(head_path, "-d", "smile", "-d", "hair:-0.5", "--strength", "-1").status == 0
    assert edits.summary["edits"] == {"smile": -1.0, "hair": -0.5}
    assert edits(head_path, "-d", "smile", "-s", "-1.5e0").status == 0
    assert edits.summary["edits"] == {"smile": -1.5}
    assert np.array_equal(edits.pixels, editor.edit_photo(head_path, {"smile": -1.5}))


def test_options_reach_the_editor(edits: Edits, editor: Editor, head_path: Path, head: np.ndarray) -> None:
    for mode in ("detail", "replace"):
        assert edits(head_path, *SMILE, "--paste", mode, "--face", 0).status == 0
        assert np.array_equal(edits.pixels, editor.edit_photo(head, {"smile": 2.0}, mode=mode))
    assert edits(head_path, *SMILE, "--aligned").status == 0
    assert edits.pixels.shape == (64, 64, 3)
    assert np.array_equal(edits.pixels, editor.edit_photo(head, {"smile": 2.0}, aligned=True))


def test_reconstruct(edits: Edits, editor: Editor, head_path: Path) -> None:
    done = edits(head_path, verb="reconstruct")
    assert (done.status, done.err) == (0, "")
    portrait = editor.portrait(head_path)
    assert np.array_equal(edits.pixels, portrait.reconstruct())
    error = np.mean((portrait.reconstruction.astype(float) - portrait.aligned) ** 2)
    assert edits.summary["psnr_db"] == pytest.approx(10 * np.log10(255**2 / error))
    assert f"{edits.summary['psnr_db']:.1f} dB" in done.out


def test_a_photo_can_be_replaced_by_its_edit(edits: Edits, editor: Editor, head: np.ndarray) -> None:
    Image.fromarray(head).save(edits.out)
    assert edits(edits.out, *SMILE).status == 0
    assert np.array_equal(edits.pixels, editor.edit_photo(head, {"smile": 2.0}))


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp", "of two dots.v2.png"])
def test_output_formats(edits: Edits, editor: Editor, head: np.ndarray, head_path: Path, name: str) -> None:
    out = edits.folder / name
    assert edits(head_path, *SMILE, out=out).status == 0
    difference = np.abs(open_image(out).pixels.astype(float) - editor.edit_photo(head, {"smile": 2.0}))
    assert difference.mean() < (0.001 if name.endswith("png") else 4)


def test_orientation_is_honoured(edits: Edits, editor: Editor, head: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    lying = np.ascontiguousarray(np.rot90(head, -1))
    Image.fromarray(lying).save(tmp_path / "lying.png", exif=exif)
    assert edits(tmp_path / "lying.png", *SMILE).status == 0
    assert np.array_equal(edits.pixels, editor.edit_photo(head, {"smile": 2.0}))
    with Image.open(edits.out) as written:
        assert not written.getexif()


def test_alpha_survives(edits: Edits, editor: Editor, head: np.ndarray, tmp_path: Path) -> None:
    alpha = np.broadcast_to(np.linspace(0, 255, head.shape[1]).astype(np.uint8), head.shape[:2])
    Image.fromarray(np.dstack([head, alpha])).save(tmp_path / "alpha.png")
    assert edits(tmp_path / "alpha.png", *SMILE).status == 0
    photo = open_image(edits.out)
    assert photo.alpha is not None and np.array_equal(photo.alpha, alpha)
    assert np.array_equal(photo.pixels, editor.edit_photo(head, {"smile": 2.0}))
    jpeg = edits.folder / "flat.jpg"
    assert edits(tmp_path / "alpha.png", *SMILE, out=jpeg).status == 0
    assert open_image(jpeg).pixels[:, :4].min() > 240


def test_unusual_pixels_work(edits: Edits, editor: Editor, head: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(head)
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(tmp_path / "deep.png")
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    image.convert("L").save(tmp_path / "grey.webp", lossless=True)
    for name in ("cmyk.jpg", "deep.png", "palette.png", "grey.webp"):
        done = edits(tmp_path / name, *SMILE)
        assert (done.status, done.err) == (0, ""), name
        assert np.array_equal(edits.pixels, editor.edit_photo(tmp_path / name, {"smile": 2.0})), name


def _write_bad(kind: str, head: np.ndarray, path: Path) -> None:
    image = Image.fromarray(head)
    if kind == "text":
        path.write_text("this is not an image")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind in ("truncated PNG", "truncated JPEG"):
        image.save(path, kind.split()[1])
        path.write_bytes(path.read_bytes()[:-5000])
    elif kind == "one pixel":
        image.resize((1, 1)).save(path, "PNG")
    elif kind == "huge":
        path.write_bytes(png_of_claimed_size(30_000, 30_000))
    elif kind in ("animated PNG", "animated WEBP", "animated GIF"):
        image.save(path, kind.split()[1], save_all=True, append_images=[image.rotate(90)])
    elif kind == "no face":
        Image.fromarray(np.full((90, 120, 3), 128, np.uint8)).save(path, "PNG")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "does not exist"),
        ("text", "is not a PNG, JPEG or WebP image"),
        ("empty", "is empty"),
        ("folder", "is a directory"),
        ("truncated PNG", "is damaged or truncated"),
        ("truncated JPEG", "is damaged or truncated"),
        ("one pixel", "is 1x1; the shorter side must be at least 16 pixels"),
        ("huge", "megapixels"),
        ("animated PNG", "is animated; extract one frame"),
        ("animated WEBP", "is animated; extract one frame"),
        ("animated GIF", "is not a PNG, JPEG or WebP image"),
        ("no face", "no face found in"),
    ],
)
def test_photos_that_are_refused(edits: Edits, head: np.ndarray, tmp_path: Path, kind: str, message: str) -> None:
    photo = tmp_path / "photo"
    _write_bad(kind, head, photo)
    error = edits(photo, *SMILE).error
    assert message in error and str(photo) in error
    assert edits.written == []


@pytest.mark.parametrize("verb", ["reconstruct", "demo"])
def test_other_verbs_refuse_photos_alike(edits: Edits, tmp_path: Path, verb: str) -> None:
    (tmp_path / "photo").write_bytes(png_of_claimed_size(30_000, 30_000))
    assert "megapixels" in edits(tmp_path / "photo", verb=verb).error
    assert edits.written == []


def test_a_face_that_is_not_there(edits: Edits, head_path: Path) -> None:
    for face in (1, -1):
        assert f"no face number {face} in {head_path}; it has 1 face" in edits(head_path, *SMILE, "--face", face).error
    assert edits.written == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-d", "simle:2"), "unknown direction 'simle'; did you mean smile? there are age, hair, smile"),
        (("-d", "SMILE:2"), "did you mean smile"),
        (("-d", "smile"), "direction 'smile' has no strength: write smile:1.5 or add --strength 1.5"),
        (("-d", "smile:much"), "edit 'smile:much' is not NAME:STRENGTH"),
        (("-d", "smile:"), "edit 'smile:' is not NAME:STRENGTH"),
        (("-d", ":2"), "edit ':2' is not NAME:STRENGTH"),
        (("-d", "smile:nan"), "is not NAME:STRENGTH"),
        (("-d", "smile", "-s", "inf"), "is not NAME:STRENGTH"),
        (("-d", "smile:1", "-d", "smile:2"), "direction 'smile' is given twice"),
        (("-d", "smile:1", "-s", "2"), "--strength is for directions without one of their own"),
        (("-d", "smile", "-s", "two"), "-s/--strength: 'two' is not FLOAT"),
        ((), "nothing to edit: give --direction NAME:STRENGTH"),
        (("-d", "smile=2"), "edit 'smile=2' is not NAME:STRENGTH; write smile:2"),
        (("-d", "smile = -1.5"), "write smile:-1.5"),
        (("-d", "smile 2"), "write smile:2"),
        (("-d", "smile=1e-1"), "write smile:1e-1"),
        (("-d", "age.pt=2"), "age.pt is not one of edgedit's directions"),
        (
            ("-d", "age.pt:2"),
            "age.pt is not one of edgedit's directions; make one of it with",
        ),
        (("-d", "age.npy", "-s", "2"), "`edgedit import direction KIND age.npy -o NAME.safetensors`"),
        (("-d", "my age (1).pt:2"), "`edgedit import direction KIND 'my age (1).pt' -o NAME.safetensors`"),
    ],
)
def test_edits_that_are_refused(edits: Edits, head_path: Path, words: tuple[str, ...], message: str) -> None:
    assert message in edits(head_path, *words).error
    assert edits.written == []


def test_strengths_outside_the_usable_range(edits: Edits, editor: Editor, head_path: Path) -> None:
    done = edits(head_path, "-d", "smile:5", "-d", "age:1")
    warning = "strength 5 of smile is outside -3..3; expect artefacts"
    assert (done.status, done.err) == (0, f"warning: {warning}\n")
    assert edits.summary["warnings"] == [warning]
    beyond = edits.pixels
    done = edits(head_path, "-d", "smile:5", "-d", "age:1", "--clamp")
    assert (done.status, done.err) == (0, "warning: strength 5 of smile is outside -3..3; using 3\n")
    limited = edits.pixels
    assert np.array_equal(limited, editor.edit_photo(head_path, {"smile": 3.0, "age": 1.0}))
    assert not np.array_equal(limited, beyond)


def test_warnings_are_no_errors_even_if_python_is_told_so(edits: Edits, head_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert edits(head_path, "-d", "smile:5").status == 0


@pytest.mark.parametrize("verb", ["edit", "reconstruct", "demo"])
def test_outputs_that_cannot_be_written(edits: Edits, head_path: Path, verb: str) -> None:
    (edits.folder / "folder.png").mkdir()
    (edits.folder / "file").touch()
    words = (head_path, *(SMILE if verb == "edit" else ()))
    for name, message in (
        ("out.gif", "its name must end in .png, .jpg, .jpeg, .webp"),
        ("out", "its name must end in"),
        ("missing/out.png", "there is no directory"),
        ("file/out.png", "there is no directory"),
        ("folder.png", "it is a directory"),
    ):
        done = edits(*words, verb=verb, out=edits.folder / name)
        assert message in done.error and done.out == ""
        assert edits.written == ["file", "folder.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(edits: Edits, head_path: Path) -> None:
    edits.json.parent.chmod(0o500)
    try:
        assert "does not let you write" in edits(head_path, *SMILE).error
    finally:
        edits.json.parent.chmod(0o700)


@pytest.mark.parametrize("verb", ["edit", "reconstruct", "demo"])
def test_bundles_and_runtimes_that_are_refused(edits: Edits, head_path: Path, own_bundle: Path, verb: str) -> None:
    words = (head_path, *(SMILE if verb == "edit" else ()))
    assert "there is no such directory" in edits(*words, verb=verb, bundle=own_bundle / "no").error
    assert "it has no manifest.json" in edits(*words, verb=verb, bundle=head_path.parent).error
    assert "unknown runtime 'abacus'; there are" in edits(*words, "--runtime", "abacus", verb=verb).error
    assert "threads must be 0 or more" in edits(*words, "--threads", "-1", verb=verb).error
    data = bytearray((own_bundle / WEIGHTS_FILE).read_bytes())
    data[-1] ^= 1
    (own_bundle / WEIGHTS_FILE).write_bytes(data)
    assert f"{WEIGHTS_FILE} is damaged" in edits(*words, verb=verb, bundle=own_bundle).error
    (own_bundle / WEIGHTS_FILE).unlink()
    assert f"{WEIGHTS_FILE} is missing" in edits(*words, verb=verb, bundle=own_bundle).error
    assert edits.written == []


def test_demo(edits: Edits) -> None:
    done = edits(verb="demo")
    assert (done.status, done.err) == (0, "")
    # A row for the photo and one for each InterFaceGAN direction, and one of photos.
    height = GAP + 3 * (CELL + LABEL + GAP) + LARGE + LABEL + GAP
    assert edits.pixels.shape == (height, WIDTH, 3)
    summary = edits.summary
    assert summary["directions"] == ["smile", "age"] and (summary["width"], summary["height"]) == (WIDTH, height)
    assert "editing smile: -3, -1.5, +1.5, +3\n" in done.out and "back into the photo: smile, age\n" in done.out
    assert summary["photo"].endswith("astronaut.jpg") and summary["warnings"] == []


def test_demo_of_chosen_directions(edits: Edits, head_path: Path) -> None:
    assert edits(head_path, "-d", "hair", verb="demo").status == 0
    assert edits.pixels.shape == (GAP + 2 * (CELL + LABEL + GAP) + LARGE + LABEL + GAP, WIDTH, 3)
    edits.out.unlink()
    edits.json.unlink()
    assert "did you mean hair" in edits(head_path, "-d", "hari", verb="demo").error
    assert edits.written == []


def test_demo_of_a_bundle_without_directions(edits: Edits, head_path: Path, tmp_path: Path) -> None:
    plain = write_faces(tmp_path / "plain", replace(FACES, name="plain"))
    done = edits(head_path, verb="demo", bundle=plain)
    assert (done.status, done.err) == (0, "") and "back into the photo: none" in done.out
    assert edits.pixels.shape == (GAP + CELL + LABEL + GAP, WIDTH, 3)
    assert "unknown direction 'smile'; there are none" in edits(head_path, *SMILE, bundle=plain).error
