"""IO binding, tensors that stay where they are, and typed graphs from engine folders."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engines.building.build import build
from engines.bundle import Bundle
from engines.bundle.engine_manifest import engine_manifest_bytes, parse_engine_manifest
from engines.errors import BundleError, EdgeditError, EngineError, SignatureError
from engines.runtimes import create
from engines.runtimes.onnxruntime import OnnxRuntime
from engines.runtimes.ort_values import OrtTensor
from tests.engines.engine_folders import flip, seal, write_engine
from tests.random_bundle import RANDOM_BUNDLE


def feeds_for(runtime: OnnxRuntime, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {spec.name: rng.normal(size=(batch, *spec.shape[1:])).astype(spec.dtype) for spec in runtime.inputs}


@pytest.fixture
def edit(tiny_bundle: Bundle) -> OnnxRuntime:
    return OnnxRuntime.load(tiny_bundle, "edit", threads=1)


def test_binding_gives_what_a_plain_run_gives(tiny_bundle: Bundle, edit: OnnxRuntime) -> None:
    plain = onnxruntime.InferenceSession(tiny_bundle.path / "graphs/edit.onnx", providers=["CPUExecutionProvider"])
    for batch, seed in ((1, 0), (3, 1), (1, 2), (3, 3)):
        feeds = feeds_for(edit, batch, seed)
        expected = plain.run(["image"], feeds)[0]
        assert np.array_equal(edit.run(feeds)["image"], expected)
        held = {name: edit.put(array) for name, array in feeds.items()}
        assert np.array_equal(edit.run(held)["image"], expected)
        kept = edit.run({**feeds, "w": held["w"]}, keep=("image",))["image"]
        assert isinstance(kept, OrtTensor)
        assert kept.shape == expected.shape and kept.dtype == np.uint8
        assert np.array_equal(kept.numpy(), expected)


def test_results_are_not_overwritten_by_the_next_run(edit: OnnxRuntime) -> None:
    first = edit.run(feeds_for(edit, 2, 0))["image"]
    kept = edit.run(feeds_for(edit, 2, 0), keep=("image",))["image"]
    before = first.copy()
    other = edit.run(feeds_for(edit, 2, 1))["image"]
    assert not np.array_equal(other, before)
    assert np.array_equal(first, before) and np.array_equal(kept.numpy(), before)


def test_what_is_held_is_neither_copied_nor_allocated_again(edit: OnnxRuntime, monkeypatch) -> None:
    """The values that were put are bound themselves, and only what comes from the host passes through others."""
    bound: list[tuple[str, int]] = []
    bind = onnxruntime.IOBinding.bind_ortvalue_input

    def note(self, name, value) -> None:
        bound.append((name, value.data_ptr()))
        bind(self, name, value)

    monkeypatch.setattr(onnxruntime.IOBinding, "bind_ortvalue_input", note)
    feeds = feeds_for(edit, 1)
    held = {name: edit.put(feeds[name]) for name in ("w", "feature", "w_e", "generator_feature")}
    for seed in range(3):
        edit.run({**feeds_for(edit, 1, seed), **held})
    runs = [dict(bound[i : i + 6]) for i in range(0, 18, 6)]
    for name, tensor in held.items():
        assert [run[name] for run in runs] == [tensor.value.data_ptr()] * 3
    # The deltas come from the host: through one value each, the same in every run.
    for name in ("delta_w", "style_delta"):
        assert len({run[name] for run in runs}) == 1
    [[values]] = edit._idle.values()
    assert set(values.inputs) == {"delta_w", "style_delta"}


def test_one_graph_takes_what_another_kept(tiny_bundle: Bundle) -> None:
    invert, edit = (OnnxRuntime.load(tiny_bundle, name, threads=1) for name in ("invert", "edit"))
    image = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), np.uint8)
    names = [spec.name for spec in invert.outputs]
    kept, copied = invert.run({"image": image}, keep=names), invert.run({"image": image})
    for name in names:
        assert np.array_equal(kept[name].numpy(), copied[name])
    deltas = {name: feeds_for(edit, 2)[name] for name in ("delta_w", "style_delta")}
    expected = edit.run({**copied, **deltas})["image"]
    # The session that made them may be gone.
    del invert
    gc.collect()
    assert np.array_equal(edit.run({**kept, **deltas})["image"], expected)


def test_nothing_is_kept_alive_that_was_dropped(edit: OnnxRuntime) -> None:
    feeds = feeds_for(edit, 1)
    tensor = edit.put(feeds["feature"])
    value = weakref.ref(tensor.value)
    edit.run({**feeds, "feature": tensor})
    del tensor
    gc.collect()
    assert value() is None


def test_what_was_put_is_a_copy(edit: OnnxRuntime) -> None:
    feeds = feeds_for(edit, 1)
    array = feeds["w"].copy()
    tensor = edit.put(array)
    expected = edit.run(feeds)["image"]
    array[:] = 100
    assert np.array_equal(edit.run({**feeds, "w": tensor})["image"], expected)
    strided = edit.put(np.asfortranarray(feeds["feature"]))
    assert np.array_equal(edit.run({**feeds, "feature": strided})["image"], expected)


def test_only_so_many_shapes_are_kept(edit: OnnxRuntime) -> None:
    for batch in range(1, 12):
        assert edit.run(feeds_for(edit, batch))["image"].shape[0] == batch
    assert len(edit._idle) == 8
    assert {shapes[0][0] for shapes in edit._idle} == set(range(4, 12))


def test_threads_do_not_share_values(edit: OnnxRuntime) -> None:
    feeds = [feeds_for(edit, 1, seed) for seed in range(6)]
    expected = [edit.run(feed)["image"] for feed in feeds]
    start = threading.Barrier(3)

    def work(offset: int) -> bool:
        start.wait()
        numbers = [(offset + i) % 6 for i in range(60)]
        return all(np.array_equal(edit.run(feeds[i])["image"], expected[i]) for i in numbers)

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, range(3)))


def test_wrong_tensors_name_the_contract(edit: OnnxRuntime) -> None:
    feeds = feeds_for(edit, 1)
    with pytest.raises(ValueError, match=r"input w is float32 \(2, 6, 8\); it takes float32 \(batch, 6, 8\)|batch = "):
        edit.run({**feeds, "w": edit.put(np.zeros((2, 6, 8), np.float32))})
    with pytest.raises(ValueError, match="input w is float64"):
        edit.run({**feeds, "w": edit.put(np.zeros((1, 6, 8)))})
    with pytest.raises(ValueError, match="input w must be a NumPy array, got list"):
        edit.run({**feeds, "w": [1.0]})
    with pytest.raises(ValueError, match="graph edit has no output teapot; it gives image"):
        edit.run(feeds, keep=("teapot",))
    assert edit.run(feeds)["image"].shape == (1, 12, 16, 3)


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random bundle with a typed graph for ONNX Runtime, built for real. Not to be changed."""
    path = shutil.copytree(RANDOM_BUNDLE, tmp_path_factory.mktemp("typed") / "demo")
    build(path, runtime="onnxruntime", target="cpu", precision="fp16", graphs=("reconstruct",))
    return path


def test_a_typed_graph_runs_from_its_folder(typed: Path) -> None:
    bundle = Bundle.load(typed)
    own = create("onnxruntime", bundle, "reconstruct", threads=1)
    half = create("onnxruntime", bundle, "reconstruct", threads=1, precision="fp16")
    assert half.inputs == own.inputs and half.outputs == own.outputs
    feeds = {spec.name: 0.5 * array for spec, array in zip(own.inputs, feeds_for(own, 2).values(), strict=True)}
    expected, image = own.run(feeds)["image"].astype(int), half.run(feeds)["image"]
    # Another graph than the bundle's own: FP16 shows, and is close.
    difference = np.abs(image - expected)
    assert image.std() > 10 and 0 < difference.max() and difference.mean() < 0.5


def test_a_typed_graph_is_refused_if_damaged_or_of_another_export(typed: Path, tmp_path: Path) -> None:
    path = shutil.copytree(typed, tmp_path / "demo")
    folder = path / "engines" / "onnxruntime-cpu-fp16"
    bundle = Bundle.load(path)
    for file in ("reconstruct.onnx", "reconstruct.weights"):
        restore = flip(folder / file)
        with pytest.raises(EngineError, match=rf"{file} is damaged \(its digest differs\); build the engine again"):
            create("onnxruntime", bundle, "reconstruct", precision="fp16")
        restore()
    raw = (folder / "engine.json").read_bytes()
    manifest = parse_engine_manifest(raw, "demo")
    seal(folder, engine_manifest_bytes(manifest.model_copy(update={"weights_sha256": "0" * 64})))
    with pytest.raises(EngineError, match="was built from other weights than this bundle"):
        create("onnxruntime", bundle, "reconstruct", precision="fp16")
    seal(folder, raw)
    assert create("onnxruntime", bundle, "reconstruct", precision="fp16", threads=1).graph == "reconstruct"


def test_typed_graphs_that_are_not_there(typed: Path, tiny_bundle_path: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(typed)
    with pytest.raises(
        EngineError, match=r"no onnxruntime int8 engine of edit; there are onnxruntime-cpu-fp16 .*build"
    ):
        create("onnxruntime", bundle, "edit", precision="int8")
    with pytest.raises(EngineError, match="no onnxruntime engine for cuda of reconstruct"):
        create("onnxruntime", bundle, "reconstruct", target="cuda")
    with pytest.raises(EngineError, match="no onnxruntime fp16 engine of encoder"):
        create("onnxruntime", bundle, "encoder", precision="fp16")
    with pytest.raises(BundleError, match="there is no graph 'teapot'"):
        create("onnxruntime", bundle, "teapot", precision="fp16")
    other = shutil.copytree(tiny_bundle_path, tmp_path / "tiny")
    write_engine(other, "onnxruntime", "cpu", version=onnxruntime.__version__)
    with pytest.raises(EngineError, match=r"edit\.engine cannot be loaded by ONNX Runtime") as caught:
        create("onnxruntime", Bundle.load(other), "edit", precision="fp16")
    assert "\n" not in str(caught.value)


def test_an_unsigned_bundle_is_refused_where_a_signature_is_required(typed: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(typed)
    for options in ({}, {"precision": "fp16"}):
        with pytest.raises(SignatureError, match=r" is not signed|signatures need"):
            create("onnxruntime", bundle, "reconstruct", public_key=tmp_path / "key.pem", **options)


@pytest.mark.gpu
@pytest.mark.skipif("CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="no CUDA provider")
def test_tensors_stay_on_the_gpu(tiny_bundle: Bundle) -> None:
    cpu = OnnxRuntime.load(tiny_bundle, "edit")
    invert, edit = (OnnxRuntime.load(tiny_bundle, name, provider="cuda") for name in ("invert", "edit"))
    image = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), np.uint8)
    names = [spec.name for spec in invert.outputs]
    kept = invert.run({"image": image}, keep=names)
    assert {tensor.value.device_name() for tensor in kept.values()} == {"cuda"}
    deltas = {name: feeds_for(edit, 2)[name] for name in ("delta_w", "style_delta")}
    arrays = {name: tensor.numpy() for name, tensor in kept.items()}
    expected = cpu.run({**arrays, **deltas})["image"].astype(int)
    for _ in range(2):
        assert np.abs(edit.run({**kept, **deltas})["image"] - expected).max() <= 1


@pytest.mark.parametrize("wrong", ["thread", "device_id", "requires_signed", "intra_op_num_threads"])
def test_options_that_do_not_exist_are_refused_with_those_that_do(tiny_bundle: Bundle, wrong: str) -> None:
    there = "it has provider, threads, precision, target, public_key"
    with pytest.raises(EdgeditError, match=f"^runtime onnxruntime has no option {wrong}; {there}$"):
        create("onnxruntime", tiny_bundle, "edit", **{wrong: 1})


@pytest.mark.parametrize("threads", [-1, 1.5, "2", True])
def test_threads_that_cannot_be(tiny_bundle: Bundle, threads: object) -> None:
    with pytest.raises(ValueError, match="threads must be 0 or more, got "):
        create("onnxruntime", tiny_bundle, "edit", threads=threads)
