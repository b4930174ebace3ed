from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgedit
from edgedit import Direction, Editor, Inversion, Portrait, Strength
from edgedit.editor import open_bundle
from engines.errors import (
    BundleError,
    DirectionError,
    ImageError,
    NoFaceError,
    RuntimeUnavailableError,
    StrengthWarning,
)
from tests.edgedit.conftest import FACES, write_faces
from tests.engines.conftest import TINY

_ROOT = Path(__file__).resolve().parents[2]


def same(a: Inversion, b: Inversion) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("w", "feature", "w_e", "generator_feature"))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference, in levels."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(float) - b).mean())


def test_the_package_names_its_parts() -> None:
    parts = {"Direction", "EdgeditError", "Editor", "Inversion", "PORTRAIT_BUNDLE", "Portrait", "Strength"}
    parts |= {"Credentials"}
    functions = {"build", "certify", "estimate", "refit", "export", "train", "evaluate"}
    functions |= {
        "batch",
        "pack",
        "read_credentials",
        "fit_directions",
        "calibrate_directions",
        "import_direction",
        "import_mapper",
        "import_weights",
    }
    assert set(edgedit.__all__) == parts | {"AsyncClient", "Client"} | functions
    assert set(edgedit.__all__) <= set(dir(edgedit))
    assert all(hasattr(edgedit, name) for name in edgedit.__all__) and not hasattr(edgedit, "Servant")
    assert edgedit.__version__.count(".") == 2


def test_importing_it_imports_no_torch() -> None:
    code = (
        "import sys, edgedit, edgedit.cli; print([m for m in ('torch', 'onnx', 'cv2', 'training') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_directions(editor: Editor) -> None:
    assert list(editor.directions) == ["smile", "age", "hair"]
    age = editor.directions["age"]
    assert (age.min_strength, age.max_strength, age.kind, age.description) == (
        -2.0,
        2.5,
        "interfacegan",
        "changes the age",
    )


def test_every_kind_of_source_gives_the_same_inversion(
    editor: Editor, head: np.ndarray, head_path: Path, portrait: Portrait
) -> None:
    expected = editor.invert(head)
    assert expected.batch == 1 and expected.w.shape == (1, FACES.w_rows, FACES.style_dim)
    for source in (head_path, str(head_path), head_path.read_bytes(), Image.fromarray(head)):
        assert same(editor.invert(source), expected)
    assert not same(portrait.inversion, editor.invert(np.ascontiguousarray(head[:, ::-1])))


def test_reconstruct_and_edit_give_aligned_faces(editor: Editor, head: np.ndarray) -> None:
    inversion = editor.invert(head)
    plain = editor.reconstruct(inversion)
    assert plain.shape == (64, 64, 3) and plain.dtype == np.uint8
    # With these graphs f'' = f' + gain (F~ - F): no change gives the reconstruction.
    assert np.array_equal(editor.edit(inversion, {}), plain)
    assert np.array_equal(editor.edit(inversion, {"smile": 0.0, "hair": 0}), plain)
    seen = [plain]
    for edits in ({"smile": 2.0}, {"smile": -2.0}, {"age": -1}, {"hair": 3.0}, {"smile": 2.0, "age": -1.0}):
        image = editor.edit(inversion, edits)
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8
        assert all(distance(image, other) > 0.5 for other in seen), edits
        seen.append(image)
    assert np.array_equal(editor.edit(inversion, {"age": -1.0, "smile": 2.0}), seen[-1])


def test_an_edit_takes_the_first_photo_of_a_batch(editor: Editor, head: np.ndarray, portrait: Portrait) -> None:
    faces = np.stack([portrait.aligned, portrait.aligned[:, ::-1]])
    batch = editor.session.invert(faces)
    assert np.array_equal(editor.edit(batch, {"smile": 1.0}), editor.edit(batch[0], {"smile": 1.0}))
    assert np.array_equal(editor.reconstruct(batch[1]), editor.reconstruct(editor.invert(faces[1], True)))


def test_aligned_faces_are_only_resized(editor: Editor, portrait: Portrait) -> None:
    face = portrait.aligned
    assert same(editor.invert(face, aligned=True), portrait.inversion)
    large = np.asarray(Image.fromarray(face).resize((256, 256), Image.Resampling.BICUBIC))
    given = editor.portrait(large, aligned=True)
    assert given.alignment is None and distance(given.aligned, face) < 3
    assert np.array_equal(given.edit({"smile": 1.0}), editor.edit(given.inversion, {"smile": 1.0}))
    assert np.array_equal(given.reconstruct(), given.reconstruction)
    assert editor.edit_photo(large, {"smile": 1.0}, aligned=True).shape == (64, 64, 3)
    with pytest.raises(ImageError, match="must be square, this image is 64x32"):
        editor.invert(face[:32], aligned=True)


def test_a_saved_inversion_edits_alike(editor: Editor, portrait: Portrait, tmp_path: Path) -> None:
    portrait.inversion.save(tmp_path / "face.safetensors")
    again = Inversion.load(tmp_path / "face.safetensors")
    edits = {"smile": 1.5, "hair": 1.0}
    assert np.array_equal(editor.edit(again, edits), editor.edit(portrait.inversion, edits))


@pytest.mark.parametrize("mode", ["auto", "detail", "replace"])
def test_pixels_far_from_the_face_stay(portrait: Portrait, astronaut: np.ndarray, mode: str) -> None:
    edited = portrait.edit({"smile": 2.0, "age": -1.0}, mode=mode)
    assert edited.shape == astronaut.shape and edited.dtype == np.uint8
    alignment = portrait.alignment
    assert alignment is not None
    low, high = np.floor(alignment.quad.min(axis=0)).astype(int), np.ceil(alignment.quad.max(axis=0)).astype(int)
    far = np.ones(astronaut.shape[:2], bool)
    far[max(low[1], 0) : high[1], max(low[0], 0) : high[0]] = False
    assert far.mean() > 0.5
    assert np.array_equal(edited[far], astronaut[far])
    x, y = alignment.quad.mean(axis=0).astype(int)
    middle = (slice(y - 20, y + 20), slice(x - 20, x + 20))
    assert distance(edited[middle], astronaut[middle]) > 1


def test_no_edit_leaves_the_photo_as_it_is_where_its_texture_is_kept(portrait: Portrait, astronaut: np.ndarray) -> None:
    assert np.array_equal(portrait.edit({}, mode="detail"), astronaut)


def test_edit_photo_is_a_portrait_edited(editor: Editor, head_path: Path) -> None:
    edits = {"smile": 2.0}
    assert np.array_equal(editor.edit_photo(head_path, edits), editor.portrait(head_path).edit(edits))


def test_the_source_array_is_not_written_to(editor: Editor, head: np.ndarray) -> None:
    given = head.copy()
    given.flags.writeable = False
    edited = editor.edit_photo(given, {"smile": 3.0})
    assert np.array_equal(given, head) and not np.shares_memory(edited, given)


def test_orientation_is_honoured(editor: Editor, head: np.ndarray) -> None:
    """A photo stored on its side gives the upright photo's edit: exactly from PNG, up to its coding from JPEG."""
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(head)))
    upright = editor.edit_photo(head, {"smile": 2.0})
    for file_format, tolerance in (("PNG", 0.0), ("JPEG", 2.0)):
        stream = io.BytesIO()
        lying.save(stream, file_format, exif=exif, **({"quality": 97} if file_format == "JPEG" else {}))
        edited = editor.edit_photo(stream.getvalue(), {"smile": 2.0})
        assert edited.shape == head.shape
        assert distance(edited, upright) <= tolerance


def test_faces_are_numbered_from_the_largest(editor: Editor, head: np.ndarray) -> None:
    width = head.shape[1]
    small = np.asarray(Image.fromarray(head).resize((width * 2 // 3,) * 2, Image.Resampling.LANCZOS))
    photo = np.full((head.shape[0], width + small.shape[1], 3), 128, np.uint8)
    photo[:, :width] = head
    photo[: small.shape[0], width:] = small
    for face, changed in ((None, 0), (0, 0), (1, 1)):
        difference = (editor.edit_photo(photo, {"smile": 2.0}, face=face) != photo).any(axis=2)
        sides = [difference[:, :width].sum(), difference[:, width:].sum()]
        assert sides[changed] > 1000 and sides[changed] > 10 * sides[1 - changed], face
    with pytest.raises(NoFaceError, match="no face number 2 in the photo; it has 2 faces, numbers 0 to 1"):
        editor.invert(photo, face=2)


def test_no_face(editor: Editor, tmp_path: Path) -> None:
    blank = np.full((80, 80, 3), 90, np.uint8)
    with pytest.raises(NoFaceError, match="no face found in the photo"):
        editor.edit_photo(blank, {"smile": 1.0})
    Image.fromarray(blank).save(tmp_path / "blank.png")
    with pytest.raises(NoFaceError, match=r"no face found in .*blank\.png"):
        editor.invert(tmp_path / "blank.png")


def test_unknown_directions_and_strengths(editor: Editor, portrait: Portrait) -> None:
    inversion = portrait.inversion
    with pytest.raises(DirectionError, match="unknown direction 'simle'; did you mean smile"):
        editor.edit(inversion, {"simle": 1.0})
    for strength in (float("nan"), float("inf"), "2", None, True):
        with pytest.raises(DirectionError, match="strength of smile must be"):
            editor.edit(inversion, {"smile": strength})  # type: ignore[dict-item]
    with pytest.warns(StrengthWarning, match=r"strength 5 of smile is outside -3\.\.3; expect artefacts"):
        beyond = editor.edit(inversion, {"smile": 5.0})
    with pytest.warns(StrengthWarning, match="using 3"):
        limited = editor.edit(inversion, {"smile": 5.0}, clamp=True)
    assert np.array_equal(limited, editor.edit(inversion, {"smile": 3.0}))
    assert distance(beyond, limited) > 0.5


def test_masked_strengths_and_sweeps(editor: Editor, portrait: Portrait) -> None:
    inversion, vector = portrait.inversion, editor.directions["smile"].vector
    masked = editor.edit(inversion, {"smile": Strength(2.0, rows=(0, 3)), "hair": 1.0})
    delta = np.zeros((FACES.w_rows, FACES.style_dim), np.float32)
    delta[:3] = 2 * vector
    # The same delta, given as a latent mapper's would be.
    assert np.array_equal(editor.edit(inversion, {"hair": 1.0}, delta_w=delta), masked)
    assert not np.array_equal(masked, editor.edit(inversion, {"smile": 2.0, "hair": 1.0}))
    frames = list(editor.sweep(inversion, "smile", -2, 2, 5, edits={"hair": 1.0}))
    assert [strength for strength, _ in frames] == [-2.0, -1.0, 0.0, 1.0, 2.0]
    for strength, picture in frames:
        assert np.array_equal(picture, editor.edit(inversion, {"hair": 1.0, "smile": strength}))
    assert len(list(editor.sweep(inversion, "smile", np.float32(1), np.int8(2), np.int16(1)))) == 1


def test_an_edit_that_leaves_no_picture_is_refused(editor: Editor, portrait: Portrait) -> None:
    delta = np.random.default_rng(0).normal(size=(FACES.w_rows, FACES.style_dim))
    assert editor.edit(portrait.inversion, {}, delta_w=delta * 0.1).std() > 10
    for size in (1e4, 1e20, 3e37):
        with pytest.raises(DirectionError, match="the edit is so large that nothing is left of the picture"):
            editor.edit(portrait.inversion, {}, delta_w=delta * size)
    with pytest.raises(DirectionError, match="must be 10 x 8 finite numbers"):
        editor.edit(portrait.inversion, {}, delta_w=delta * 1e300)
    with pytest.warns(StrengthWarning), pytest.raises(DirectionError, match="use smaller strengths"):
        editor.edit(portrait.inversion, {"smile": 1e6})


def test_sweeps_and_deltas_that_cannot_be(editor: Editor, portrait: Portrait) -> None:
    inversion = portrait.inversion
    for words, message in (
        (("smlie", 0, 1, 3), "did you mean smile"),
        (("smile", 0, 1, 0), "steps must be 1 or more, got 0"),
        (("smile", 0, 1, True), "steps must be 1 or more, got True"),
        (("smile", 0, float("nan"), 3), "must be finite"),
    ):
        with pytest.raises(DirectionError, match=message):
            editor.sweep(inversion, *words)
    rows, width = FACES.w_rows, FACES.style_dim
    for bad in (np.zeros((rows + 1, width)), np.full((rows, width), np.nan), np.zeros((rows, width), int)):
        with pytest.raises(
            DirectionError, match=f"delta_w must be {rows} x {width} finite numbers for family tiny-faces"
        ):
            editor.edit(inversion, {}, delta_w=bad)


def test_a_direction_may_be_added(bundle_path: Path, portrait: Portrait, tmp_path: Path) -> None:
    editor = Editor.load(bundle_path, threads=1)
    rng = np.random.default_rng(0)
    fields: dict = {"kind": "ganspace", "space": "w", "description": "d", "source": "s", "licence": "MIT"}
    fields |= {"min_strength": 0, "max_strength": 3}
    added = Direction(name="cube", vector=rng.normal(0, 0.1, FACES.style_dim), rows=(2, 5), origin=0.5, **fields)
    added.save(tmp_path / "any.safetensors")
    assert editor.add_direction(tmp_path / "any.safetensors").name == "cube"
    strength = editor.strength_to(portrait.inversion, "cube", 2.0)
    vector = added.vector.astype(float)
    assert strength == pytest.approx(2.5 - portrait.inversion.w_e[0, 0] @ vector / (vector @ vector), rel=1e-5)
    assert not np.array_equal(editor.edit(portrait.inversion, {"cube": 3.0}), editor.reconstruct(portrait.inversion))
    with pytest.raises(DirectionError, match="direction smile does not say where the mean code lies"):
        editor.strength_to(portrait.inversion, "smile", 2.0)
    wide = Direction(name="wide", vector=np.ones(512), **fields)
    with pytest.raises(DirectionError, match="direction wide is 512 values in w and does not fit family tiny-faces"):
        editor.add_direction(wide)
    assert "wide" not in editor.directions


def test_an_inversion_of_another_family_is_refused(editor: Editor, tmp_path: Path) -> None:
    cars = Editor.load(write_faces(tmp_path / "cars", TINY), threads=1)
    photo = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    with pytest.raises(ImageError, match="family tiny is not of faces"):
        cars.invert(photo)
    inversion = cars.invert(photo, aligned=True)
    assert cars.edit(inversion, {}).shape == (*TINY.image_shape, 3) == (12, 16, 3)
    with pytest.raises(ValueError, match="family tiny-faces takes"):
        editor.edit(inversion, {"smile": 1.0})
    with pytest.raises(DirectionError, match="there are none"):
        cars.edit(inversion, {"smile": 1.0})


def test_what_cannot_be_loaded(bundle_path: Path, own_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="unknown runtime 'onnx'; there are onnxruntime"):
        Editor.load(bundle_path, "onnx")
    with pytest.raises(RuntimeUnavailableError, match="unknown provider 'gpu'; there are cpu, cuda"):
        Editor.load(bundle_path, provider="gpu")
    with pytest.raises(ValueError, match="threads must be 0 or more"):
        Editor.load(bundle_path, threads=-1)
    with pytest.raises(BundleError, match="not a bundle: there is no such directory"):
        Editor.load(tmp_path / "missing")
    with pytest.raises(BundleError, match=r"not a bundle: it has no manifest\.json"):
        Editor.load(tmp_path)
    (own_bundle / "directions" / "age.safetensors").unlink()
    with pytest.raises(BundleError, match=r"directions/age\.safetensors is missing"):
        Editor.load(own_bundle)


def test_an_installation_without_the_bundle_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgedit.editor.PORTRAIT_BUNDLE", tmp_path / "portrait")
    with pytest.raises(BundleError, match="the portrait bundle is not part of this installation") as caught:
        open_bundle(tmp_path / "portrait")
    assert str(tmp_path) not in str(caught.value)


def test_a_photo_is_rendered_without_an_edit_only_where_that_is_used(editor: Editor, head: np.ndarray) -> None:
    portrait = editor.portrait(head)
    replaced = portrait.edit({"smile": 1.0}, mode="replace")
    assert "reconstruction" not in vars(portrait)
    added = portrait.edit({"smile": 1.0}, mode="detail")
    assert "reconstruction" in vars(portrait)
    # However often and in whichever order the modes are taken, the pictures are the same.
    assert np.array_equal(portrait.edit({"smile": 1.0}, mode="replace"), replaced)
    assert np.array_equal(editor.edit_photo(head, {"smile": 1.0}, mode="detail"), added)


def test_a_slider_inverts_once_and_gives_what_plain_edits_give(
    editor: Editor, head: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    run = editor.session._run

    def note(graph: str, *rest: Any) -> dict[str, Any]:
        ran.append(graph)
        return run(graph, *rest)

    monkeypatch.setattr(editor.session, "_run", note)
    portrait = editor.portrait(head)
    steps = [portrait.edit({"smile": strength}, mode="replace") for strength in (-1.0, 0.5, 1.5)]
    assert ran == ["invert", "edit", "edit", "edit"]
    ran.clear()
    plain = [editor.edit_photo(head, {"smile": strength}, mode="replace") for strength in (-1.0, 0.5, 1.5)]
    assert ran == ["invert", "edit"] * 3
    assert all(np.array_equal(step, one) for step, one in zip(steps, plain, strict=True))
