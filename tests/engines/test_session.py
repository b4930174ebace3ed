from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from engines import tensors
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.contracts import PARTS, PIPELINES, style_width
from engines.directions import load_directions, resolve
from engines.errors import BundleError, DirectionError, EdgeditError, OutputError, RuntimeUnavailableError
from engines.family import ModelFamily
from engines.inversion import HeldInversion
from engines.photo.tone import LIGHTS, PLAIN, Tone
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.session import EditSession, Inversion, _picture, encoder_image


def photos(family: ModelFamily, batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, *family.image_shape, 3), np.uint8)


def inversion_of(batch: int, rows: int = 6, width: int = 8, seed: int = 0) -> Inversion:
    rng = np.random.default_rng(seed)
    w, w_e = rng.normal(size=(2, batch, rows, width)).astype(np.float32)
    feature, generator_feature = rng.normal(size=(2, batch, 8, 8, 8)).astype(np.float32)
    return Inversion({"w": w, "feature": feature, "w_e": w_e, "generator_feature": generator_feature})


def same(a: Inversion, b: Inversion) -> bool:
    return set(a.names) == set(b.names) and all(np.array_equal(a.array(name), b.array(name)) for name in a.names)


@pytest.fixture(scope="module")
def session(tiny_bundle: Bundle) -> EditSession:
    return EditSession(tiny_bundle, threads=1)


def test_shapes_and_types(session: EditSession) -> None:
    family = session.family
    inversion = session.invert(photos(family, 3))
    assert inversion.batch == len(inversion) == 3
    assert inversion.w.shape == inversion.w_e.shape == (3, 6, 8)
    assert inversion.feature.shape == inversion.generator_feature.shape == (3, 8, 8, 8)
    image = session.edit(inversion, np.zeros((6, 8), np.float32))
    assert image.shape == (3, 12, 16, 3) and image.dtype == np.uint8
    # With this editor f'' = f' + gain (F~ - F): no change gives the reconstruction.
    assert np.array_equal(image, session.reconstruct(inversion))


def test_only_the_graphs_in_use_are_loaded(tiny_bundle: Bundle) -> None:
    session = EditSession(tiny_bundle, threads=1)
    assert session._loaded == {}
    session.invert(photos(session.family, 1))
    assert set(session._loaded) == {"invert"}
    session.warm_up()
    assert set(session._loaded) == set(PIPELINES)


@pytest.mark.parametrize(
    "change",
    [{}, {"rgb_skip": True}, {"visible_rows": None}, {"visible_rows": None, "encoder_size": (32, 32)}],
    ids=["cut", "rgb_skip", "square", "larger_encoder"],
)
def test_split_graphs_compose_to_the_pipelines(
    make_tiny_bundle: Callable[..., Path], tiny_family: ModelFamily, change: dict
) -> None:
    family = replace(tiny_family, **change)
    fused, split = (
        EditSession(make_tiny_bundle(family=family, graphs=graphs), threads=1) for graphs in (PIPELINES, PARTS)
    )
    images = photos(family, 2)
    a, b = fused.invert(images), split.invert(images)
    for name in a.names:
        np.testing.assert_allclose(a.array(name), b.array(name), atol=1e-6)
    edit = resolve(load_directions(fused.bundle), {"pose": 1.5, "age": -1, "hair": 0.5}, family)
    images = [s.edit(a, edit.delta_w, edit.style_delta).astype(int) for s in (fused, split)]
    assert images[0].std() > 5
    assert np.abs(images[0] - images[1]).max() <= 1
    assert np.abs(fused.reconstruct(a).astype(int) - split.reconstruct(a)).max() <= 1
    split.warm_up(batch=2)


def test_an_edit_is_the_formula(session: EditSession, tiny_bundle: Bundle) -> None:
    """eq. 3.11 with the tiny graphs' own arithmetic, in NumPy."""
    family = session.family
    stored = load(tiny_bundle.read(WEIGHTS_FILE))
    weights = {name: value.astype(np.float32) for name, value in stored.items()}
    inversion = session.invert(photos(family, 2))
    edit = resolve(load_directions(tiny_bundle), {"smile": 0.7, "hair": -0.4}, family)

    lower = (inversion.w_e + edit.delta_w).mean(1) @ weights["generator.lower"]
    lower = lower + edit.style_delta @ weights["generator.lower_style"]
    edited = lower[:, :, None, None] * weights["generator.const"]
    feature = inversion.feature + weights["editor.gain"] * (edited - inversion.generator_feature)
    upper = np.einsum("bchw,cokl->bohkwl", feature, weights["generator.upper"]).reshape(2, 3, 16, 16)
    upper += ((inversion.w + edit.delta_w).mean(1) @ weights["generator.upper_w"])[:, :, None, None]
    expected = (upper[:, :, 2:14].clip(-1, 1) * 127.5 + 127.5).transpose(0, 2, 3, 1)

    image = session.edit(inversion, edit.delta_w, edit.style_delta)
    assert np.abs(image - expected).max() <= 0.51


def test_linear_editing_is_the_formula(tiny_bundle: Bundle) -> None:
    """f' + G(w + Δ) − G(w): the tiny editor is the linear one with a gain, so that dividing by it gives the edit."""
    session = EditSession(tiny_bundle, threads=1)
    weights = {name: value.astype(np.float32) for name, value in load(tiny_bundle.read(WEIGHTS_FILE)).items()}
    inversion = session.invert(photos(session.family, 2))
    edit = resolve(load_directions(tiny_bundle), {"smile": 0.7, "hair": -0.4}, session.family)
    lower = (inversion.w_e + edit.delta_w).mean(1) @ weights["generator.lower"]
    lower = lower + edit.style_delta @ weights["generator.lower_style"]
    moved = lower[:, :, None, None] * weights["generator.const"] - inversion.generator_feature
    upper = np.einsum("bchw,cokl->bohkwl", inversion.feature + moved, weights["generator.upper"])
    upper = (
        upper.reshape(2, 3, 16, 16)
        + ((inversion.w + edit.delta_w).mean(1) @ weights["generator.upper_w"])[:, :, None, None]
    )
    expected = (upper[:, :, 2:14].clip(-1, 1) * 127.5 + 127.5).transpose(0, 2, 3, 1)
    assert np.abs(session.edit_linear(inversion, edit.delta_w, edit.style_delta) - expected).max() <= 0.51
    # And where an edit acts is where the editor moves the feature.
    acts = session.edit_map(inversion, edit.delta_w, edit.style_delta)
    assert acts.dtype == np.float32 and acts.shape == (2, *inversion.feature.shape[2:])
    np.testing.assert_allclose(acts, np.linalg.norm(weights["editor.gain"] * moved, axis=1), rtol=1e-4, atol=1e-5)
    none = np.zeros_like(edit.delta_w)
    np.testing.assert_allclose(session.edit_map(inversion, none), 0, atol=1e-4)
    with pytest.raises(ValueError, match="delta_w must be"):
        session.edit_map(inversion, none[:1])


def test_the_steps_of_an_edit_need_the_separate_graphs(make_tiny_bundle: Callable[..., Path]) -> None:
    session = EditSession(make_tiny_bundle(graphs=PIPELINES), threads=1)
    inversion = session.invert(photos(session.family, 1))
    delta = np.zeros((session.family.w_rows, session.family.style_dim), np.float32)
    assert not session.explains and EditSession(make_tiny_bundle(graphs=PARTS), threads=1).explains
    for ask in (session.edit_linear, session.edit_map):
        with pytest.raises(BundleError, match="there is no graph features; use `edit`"):
            ask(inversion, delta)


def test_batches_are_photos_side_by_side(session: EditSession) -> None:
    images = photos(session.family, 4)
    inversion = session.invert(images)
    delta = np.random.default_rng(3).normal(size=(4, 6, 8)).astype(np.float32)
    together = session.edit(inversion, delta)
    for i in range(4):
        alone = session.edit(inversion[i], delta[i])
        assert np.abs(together[i].astype(int) - alone[0]).max() <= 1
    shared = session.edit(inversion, delta[0])
    assert np.array_equal(shared, session.edit(inversion, np.broadcast_to(delta[0], (4, 6, 8))))


def test_an_edit_leaves_the_inversion_alone(session: EditSession) -> None:
    inversion = session.invert(photos(session.family, 1))
    before = {name: inversion.array(name).copy() for name in inversion.names}
    session.edit(inversion, np.ones((6, 8), np.float32))
    assert all(np.array_equal(getattr(inversion, name), value) for name, value in before.items())


def test_threads_may_share_a_session(tiny_bundle: Bundle) -> None:
    session = EditSession(tiny_bundle, threads=1)
    images = photos(session.family, 8)
    delta = np.full((6, 8), 0.25, np.float32)

    def work(i: int) -> np.ndarray:
        return session.edit(session.invert(images[i : i + 1]), delta)

    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(work, range(8)))
    assert all(np.array_equal(parallel[i], work(i)) for i in range(8))


@pytest.mark.parametrize("graphs", [PIPELINES, PARTS], ids=["pipelines", "parts"])
def test_an_inversion_stays_where_the_runtime_computes(
    make_tiny_bundle: Callable[..., Path], graphs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edits and reconstructions take the feature tensors as they are: none is copied to the host or fed from there."""
    session = EditSession(make_tiny_bundle(graphs=graphs), threads=1)
    inversion = session.invert(photos(session.family, 2))
    deltas = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
    expected = [session.edit(inversion.host(), delta) for delta in deltas]
    assert isinstance(inversion, HeldInversion)
    from_host: set[tuple[str, str]] = set()
    run = OnnxRuntime.run

    def note(self: OnnxRuntime, feeds, keep=()):
        from_host.update((self.graph, name) for name, feed in feeds.items() if isinstance(feed, np.ndarray))
        return run(self, feeds, keep)

    monkeypatch.setattr(OnnxRuntime, "run", note)
    for delta, image in zip(deltas, expected, strict=True):
        assert np.array_equal(session.edit(inversion, delta), image)
    session.reconstruct(inversion)
    assert not {name for _, name in from_host if "feature" in name}
    if graphs == PIPELINES:
        assert from_host == {("edit", "delta_w"), ("edit", "style_delta")}
        # Nothing has been asked for on the host, so that nothing was copied there.
        assert not {"w", "feature", "w_e", "generator_feature"} & set(vars(inversion))
    from_host.clear()
    session.edit(inversion.host(), deltas[0])
    assert {name for _, name in from_host} >= {"feature", "generator_feature"}


def test_an_inversion_from_a_file_can_be_held(session: EditSession, tmp_path: Path) -> None:
    inversion = session.invert(photos(session.family, 2))
    inversion.save(tmp_path / "photo")
    loaded = Inversion.load(tmp_path / "photo")
    assert same(loaded, inversion)
    held = session.hold(loaded)
    assert isinstance(held, HeldInversion) and held.held_by(session) is not None
    assert session.hold(held) is held
    delta = np.full((6, 8), 0.3, np.float32)
    assert np.array_equal(session.edit(held, delta), session.edit(loaded, delta))
    with pytest.raises(ValueError, match="family tiny takes"):
        session.hold(inversion_of(2, rows=7))


def test_what_another_session_holds_is_copied(session: EditSession, tiny_bundle: Bundle) -> None:
    other = EditSession(tiny_bundle, threads=1)
    inversion = other.invert(photos(session.family, 1))
    delta = np.full((6, 8), 0.3, np.float32)
    expected = other.edit(inversion, delta)
    assert inversion.held_by(session) is None
    assert np.array_equal(session.edit(inversion, delta), expected)
    assert session.hold(inversion) is not inversion
    # It outlives its session.
    del other
    assert np.array_equal(session.edit(inversion, delta), expected)
    assert inversion.host().batch == 1


def test_a_held_inversion_is_an_inversion(session: EditSession) -> None:
    inversion = session.invert(photos(session.family, 3))
    plain = inversion.host()
    assert type(plain) is Inversion and same(plain, inversion)
    assert inversion.w is inversion.w and not inversion.w.flags.writeable and plain.w.flags.writeable
    assert same(inversion[1:], plain[1:]) and same(inversion[2], plain[2]) and same(inversion[[2, 0]], plain[[2, 0]])
    # All photos in order are the same inversion, which stays where it is; any other choice is a copy.
    assert inversion[:] is inversion and inversion[[0, 1, 2]] is inversion and inversion[range(3)] is inversion
    assert inversion[::-1] is not inversion and inversion[[0, 1, 1]] is not inversion
    one = session.invert(photos(session.family, 1))
    assert one[0] is one and one[-1] is one and len(list(one)) == 1
    with pytest.raises(IndexError):
        one[1]
    with pytest.raises(AttributeError, match="no attribute 'teapot'"):
        inversion.teapot  # noqa: B018
    for twin in (copy.copy(inversion), copy.deepcopy(inversion), pickle.loads(pickle.dumps(inversion))):
        assert type(twin) is Inversion and same(twin, inversion)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 12, 16, 3), np.float32), "images must be uint8 RGB, got float32"),
        ([[0]], "images must be uint8 RGB, got list"),
        (np.zeros((12, 16, 3), np.uint8), r"images must be \(batch, 12, 16, 3\), got \(12, 16, 3\)"),
        (np.zeros((1, 16, 16, 3), np.uint8), r"got \(1, 16, 16, 3\)"),
        (np.zeros((1, 3, 12, 16), np.uint8), r"got \(1, 3, 12, 16\)"),
        (np.zeros((0, 12, 16, 3), np.uint8), r"got \(0, 12, 16, 3\)"),
    ],
)
def test_images_that_do_not_fit(session: EditSession, images: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        session.invert(images)


def test_deltas_and_inversions_that_do_not_fit(session: EditSession) -> None:
    inversion = inversion_of(2)
    for shape in ((8,), (6, 9), (3, 6, 8), (1, 6, 8)):
        with pytest.raises(ValueError, match=r"delta_w must be \(6, 8\) or \(2, 6, 8\)"):
            session.edit(inversion, np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="style_delta must be"):
        session.edit(inversion, np.zeros((6, 8)), np.zeros(3))
    with pytest.raises(ValueError, match="delta_w holds values that are not finite"):
        session.edit(inversion, np.full((6, 8), np.nan))
    for other in (inversion_of(2, rows=7), inversion_of(2, width=9), inversion_of(2)[:0]):
        with pytest.raises(ValueError, match="family tiny takes"):
            session.reconstruct(other)
    assert style_width(session.family) == 56


def test_a_bundle_without_the_graphs(make_tiny_bundle: Callable[..., Path]) -> None:
    session = EditSession(make_tiny_bundle(graphs=("encoder", "edit")))
    message = "there is no graph invert, nor e4e, features to compose it of; export the bundle with that graph"
    with pytest.raises(BundleError, match=message):
        session.invert(photos(session.family, 1))
    assert session.edit(inversion_of(1), np.zeros((6, 8))).shape == (1, 12, 16, 3)


def test_a_bundle_whose_graphs_are_of_another_family(tiny_bundle: Bundle, tiny_family: ModelFamily) -> None:
    family = replace(tiny_family, style_dim=16).to_dict()
    other = Bundle(tiny_bundle.path, tiny_bundle.manifest.model_copy(update={"family": family}))
    with pytest.raises(BundleError, match=r"graph .* does not fit family tiny: .* is float32 .* instead of float32"):
        EditSession(other)


def test_an_unavailable_runtime(tiny_bundle: Bundle) -> None:
    with pytest.raises(RuntimeUnavailableError, match="unknown runtime 'teapot'"):
        EditSession(tiny_bundle, "teapot").reconstruct(inversion_of(1))


@given(batch=st.integers(1, 3), rows=st.integers(1, 5), width=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_an_inversion_survives_its_file(tmp_path_factory, batch: int, rows: int, width: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("inversion") / "photo.safetensors"
    inversion = inversion_of(batch, rows, width, seed)
    inversion.save(path)
    assert same(Inversion.load(path), inversion)
    inversion[::-1].save(path)
    assert same(Inversion.load(path)[::-1], inversion)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


TONES = (Tone(3.5), PLAIN, Tone(1.0, np.repeat(LIGHTS[:, None], 3, axis=1)), Tone(1.5, np.ones((640, 3), np.float32)))


def tones_of(inversion: Inversion) -> list[dict[str, Any]]:
    return [tone.to_json() for tone in inversion.tones]


def test_light_and_colours_go_wherever_an_inversion_goes(session: EditSession, tmp_path: Path) -> None:
    told = [tone.to_json() for tone in TONES]
    inversion = session.invert(photos(session.family, 4), TONES)
    plain = session.invert(photos(session.family, 4))
    inversion.save(tmp_path / "photos")
    loaded = Inversion.load(tmp_path / "photos")
    assert same(loaded, inversion)
    for one in (inversion, inversion.host(), loaded, session.hold(loaded), pickle.loads(pickle.dumps(inversion))):
        assert tones_of(one) == told
        assert tones_of(one[2]) == told[2:3] and tones_of(one[::-1]) == told[::-1]
        assert tones_of(one[[3, 0]]) == [told[3], told[0]]
        # A session gives the model's own picture.
        delta = np.full((6, 8), 0.3, np.float32)
        assert np.array_equal(session.edit(one, delta), session.edit(plain, delta))
    # What has none of its own is written as ever, and read where no tone is known.
    inversion[1].save(tmp_path / "one")
    plain[1].save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert Inversion.load(tmp_path / "one").tones == (PLAIN,)
    with pytest.raises(ValueError, match="2 tones of 1 photos"):
        Inversion({"w": np.zeros((1, 6, 8), np.float32)}, TONES[:2])


def test_indexing() -> None:
    inversion = inversion_of(4)
    assert np.array_equal(inversion[2].w, inversion.w[2:3]) and inversion[-1].batch == 1
    assert inversion[1:3].batch == 2 and np.array_equal(inversion[[3, 0]].feature, inversion.feature[[3, 0]])
    assert len(list(inversion)) == 4
    with pytest.raises(IndexError):
        inversion[4]


def test_files_that_are_not_inversions(tmp_path: Path) -> None:
    path = tmp_path / "x"
    one = inversion_of(1)
    arrays = {name: one.array(name) for name in one.names}
    two = np.zeros((2, 6, 8), np.float32)
    bad = {
        b"": "is not a saved inversion",
        b"\xff" * 64: "is not a saved inversion",
        tensors.dump(arrays, "direction", {"version": 1}): "is not a saved inversion",
        tensors.dump(arrays, "inversion", {"version": 2}): "version 2 is not read",
        tensors.dump(arrays, "inversion", {"version": 2, "tones": [{"gain": 0}]}): "light and colours",
        tensors.dump(arrays, "inversion", {"version": 2, "tones": [PLAIN.to_json()] * 2}): "2 tones of 1 photos",
        tensors.dump(arrays | {"w": arrays["w"].astype(np.float64)}, "inversion", {"version": 1}): "float32",
        tensors.dump(arrays | {"w": two}, "inversion", {"version": 1}): "do not fit together",
        tensors.dump(arrays | {"w": arrays["w"] * np.nan}, "inversion", {"version": 1}): "invert the photo again",
        tensors.dump(arrays | {"w": np.zeros(1, np.float32)}, "inversion", {"version": 1}): "with the photos first",
        tensors.dump({}, "inversion", {"version": 1}): "is not a saved inversion",
    }
    for data, message in bad.items():
        path.write_bytes(data)
        with pytest.raises(EdgeditError, match=message) as caught:
            Inversion.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(EdgeditError, match="cannot read"):
        Inversion.load(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="cannot write"):
        inversion_of(1).save(tmp_path / "no" / "photo")


@pytest.mark.parametrize(
    ("source", "target"), [((32, 48), (16, 16)), ((40, 24), (16, 16)), ((12, 16), (16, 16)), ((16, 16), (32, 48))]
)
def test_the_encoders_image_is_that_of_the_exported_graph(source: tuple[int, int], target: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    pipelines = pytest.importorskip("export.pipelines")
    images = np.random.default_rng(1).integers(0, 256, (2, *source, 3), np.uint8)
    expected = pipelines.ImageIn(source, target)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(encoder_image(images, target), expected, atol=2e-6)


def test_photos_that_are_lost_are_told_by_what_lies_between_black_and_white() -> None:
    whole = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    small, large = np.full((2, 6, 8), 1.0), np.full((2, 6, 8), -100.0)
    assert _picture(whole, small, large) is whole
    for lost in (0, 255 * (whole[1] > 128)):
        bad = whole.copy()
        bad[1] = lost
        with pytest.raises(DirectionError, match="nothing is left of the picture"):
            _picture(bad, small, large)
        # Then it is not the edit: a generator with random weights renders such pictures.
        assert _picture(bad, small) is bad
    # A face before white, on a sixteenth of the photo, is one.
    white = np.full((1, 64, 64, 3), 255, np.uint8)
    white[:, 20:36, 20:36] = whole[:1, :16, :16]
    assert _picture(white, large) is white
