"""The PyTorch baseline agrees with ONNX Runtime on the random bundle, in every mode and arithmetic."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

import bench.runtimes  # noqa: F401  (registers the runtime)
from bench.runtimes.torch import TorchRuntime, TorchTensor
from edgedit.demo import ASTRONAUT
from engines.bundle import Bundle
from engines.bundle.engine_manifest import OptimizationProfile
from engines.contracts import PARTS
from engines.errors import BundleError, EngineError, RuntimeUnavailableError
from engines.photo import aligned_square
from engines.photo.images import open_image
from engines.runtimes import available, create
from engines.session import EditSession
from export.aot import PackageManifest, load_package, machine, write_package
from tests.engines.engine_folders import entry, flip
from tests.random_bundle import RANDOM_BUNDLE


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.load(RANDOM_BUNDLE)


@pytest.fixture(scope="module")
def reference(demo: Bundle) -> EditSession:
    return EditSession(demo, threads=1)


@pytest.fixture(scope="module")
def images(demo: Bundle) -> np.ndarray:
    """Two crops of a photo of the family's size."""
    pixels = open_image(ASTRONAUT).pixels
    side = min(pixels.shape[:2])
    crops = [aligned_square(pixels[:s, :s], demo.family.size) for s in (side, side * 3 // 4)]
    return np.stack(crops)


@pytest.fixture(scope="module")
def deltas(demo: Bundle) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [spec.shape[1:] for spec in demo.graph("edit").inputs[-2:]]
    return tuple(
        rng.normal(0, scale, shape).astype(np.float32) for scale, shape in zip((0.2, 0.1), shapes, strict=True)
    )


def test_it_is_registered() -> None:
    assert "torch" in available()


def test_a_session_runs_on_it_and_holds_its_inversions(
    demo: Bundle, reference: EditSession, images: np.ndarray, deltas: tuple[np.ndarray, np.ndarray]
) -> None:
    session = EditSession(demo, "torch")
    here, there = session.invert(images), reference.invert(images)
    np.testing.assert_allclose(here.w, there.w, atol=1e-3)
    np.testing.assert_allclose(here.feature, there.feature, atol=5e-3)
    held = here.held_by(session)  # type: ignore[attr-defined]
    assert held is not None and all(isinstance(tensor, TorchTensor) for tensor in held.values())
    expected = reference.edit(there, *deltas).astype(int)
    assert expected.std() > 10
    assert np.abs(session.edit(session.hold(there), *deltas) - expected).max() <= 1
    assert np.abs(session.edit(here, *deltas) - expected).max() <= 1
    assert np.abs(session.reconstruct(here) - reference.reconstruct(there).astype(int)).max() <= 1


@pytest.mark.parametrize("graph", PARTS)
def test_the_separate_graphs(demo: Bundle, graph: str) -> None:
    onnx, torch = create("onnxruntime", demo, graph, threads=1), create("torch", demo, graph)
    rng = np.random.default_rng(1)
    feeds = {spec.name: rng.normal(0, 0.5, (2, *spec.shape[1:])).astype(spec.dtype) for spec in onnx.inputs}
    expected, values = onnx.run(feeds), torch.run(feeds)
    assert list(values) == [spec.name for spec in onnx.outputs]
    for name, array in expected.items():
        assert values[name].dtype == array.dtype
        np.testing.assert_allclose(values[name], array, atol=2e-3 * max(1, np.abs(array).max()))


def test_fp16_is_another_arithmetic_and_close(
    demo: Bundle, reference: EditSession, images: np.ndarray, deltas: tuple[np.ndarray, np.ndarray]
) -> None:
    inversion = reference.invert(images[:1])
    expected = reference.edit(inversion, *deltas).astype(int)
    image = EditSession(demo, "torch", precision="fp16").edit(inversion, *deltas)
    difference = np.abs(image - expected)
    assert 0 < difference.max() <= 6 and difference.mean() < 0.5


def test_feeds_and_tensors(demo: Bundle) -> None:
    runtime = TorchRuntime.load(demo, "features")
    feeds = {spec.name: np.zeros((1, *spec.shape[1:]), spec.dtype) for spec in runtime.inputs}
    tensor = runtime.put(feeds["w_plus"])
    feeds["w_plus"].flags.writeable = False
    kept = runtime.run({**feeds, "w_plus": tensor}, keep=("generator_feature",))["generator_feature"]
    assert kept.shape == (1, *runtime.outputs[0].shape[1:]) and kept.dtype == np.float32
    assert np.array_equal(kept.numpy(), runtime.run(feeds)["generator_feature"])
    with pytest.raises(ValueError, match="graph features: input w_plus is float64"):
        runtime.run({**feeds, "w_plus": feeds["w_plus"].astype(float)})
    with pytest.raises(ValueError, match="graph features has no output teapot"):
        runtime.run(feeds, keep=("teapot",))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "teapot"}, ValueError, "there is no mode 'teapot'"),
        ({"precision": "int8"}, ValueError, "with precision 'int8'"),
        ({"precision": "tf32"}, ValueError, "tf32 is an arithmetic of NVIDIA GPUs"),
        ({"device": "teapot"}, ValueError, "device must be cpu, cuda"),
        ({"device": "cuda:99"}, RuntimeUnavailableError, "CUDA devices here, none for 'cuda:99'"),
        ({"mode": "aotinductor"}, ValueError, "a package goes with mode aotinductor"),
        ({"package": "x.pt2"}, ValueError, "a package goes with mode aotinductor"),
        ({"threads": -1}, ValueError, "threads must be 0 or more"),
    ],
)
def test_options_that_will_not_do(demo: Bundle, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create("torch", demo, "edit", **options)


def test_a_graph_that_the_bundle_lacks(demo: Bundle) -> None:
    with pytest.raises(BundleError, match="there is no graph 'teapot'"):
        create("torch", demo, "teapot")


def test_packages_are_checked_before_they_are_opened(demo: Bundle, tmp_path: Path) -> None:
    """No native code here: bytes that are no package, with a manifest that says what one would."""
    import torch

    path, beside = tmp_path / "edit.pt2", tmp_path / "edit.pt2.json"
    data = b"no package" * 10
    path.write_bytes(data)
    manifest = PackageManifest(
        file=entry(data),
        bundle=demo.name,
        weights_sha256=demo.manifest.files["graphs/weights.safetensors"].sha256,
        graph="edit",
        precision="fp32",
        batch=OptimizationProfile(min=1, opt=1, max=8),
        device="cpu",
        machine=machine("cpu"),
        torch=torch.__version__,
    )

    def refused(message: str, graph: str = "edit") -> None:
        with pytest.raises(EngineError, match=message) as caught:
            load_package(path, demo, graph, "fp32")
        assert "\n" not in str(caught.value)

    refused(r"edit\.pt2\.json is missing; write the package again")
    beside.write_text("{}")
    refused(r"edit\.pt2\.json is not valid: file: Field required")
    beside.write_text(manifest.model_dump_json())
    restore = flip(path)
    refused(r"edit\.pt2 is damaged \(its digest differs\); write the package again")
    restore()
    refused("edit.pt2 was built for graph edit, found invert", "invert")
    for field, value, message in (
        ("weights_sha256", "0" * 64, "built for weights 0000"),
        ("torch", "1.0", r"built for PyTorch 1\.0, found "),
        ("machine", "abacus", "built for machine abacus, found "),
        ("precision", "fp16", "built for precision fp16, found fp32"),
        ("device", "cuda", "built for device cuda, found cpu"),
    ):
        changed = {**json.loads(manifest.model_dump_json()), field: value}
        beside.write_text(json.dumps(changed))
        refused(message)
    with pytest.raises(ValueError, match=r"must end in \.pt2"):
        write_package(demo, "edit", tmp_path / "edit.so")
    with pytest.raises(ValueError, match="two sizes in rising order"):
        write_package(demo, "edit", path, batch=(1, 1))


@pytest.mark.slow
@pytest.mark.timeout(3600)  # the C++ compiler takes its time
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++) here")
def test_an_aotinductor_package(
    demo: Bundle,
    reference: EditSession,
    images: np.ndarray,
    deltas: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    path = tmp_path / "edit.pt2"
    manifest = write_package(demo, "edit", path)
    assert manifest.file.bytes == path.stat().st_size
    assert sorted(file.name for file in tmp_path.iterdir()) == ["edit.pt2", "edit.pt2.json"]
    runtime = create("torch", demo, "edit", mode="aotinductor", package=path)
    inversion = reference.invert(images)
    feeds = {name: getattr(inversion, name) for name in ("w", "feature", "w_e", "generator_feature")}
    for batch in (1, 2):
        more = {name: np.stack([delta] * batch) for name, delta in zip(("delta_w", "style_delta"), deltas, strict=True)}
        image = runtime.run({name: array[:batch] for name, array in feeds.items()} | more)["image"]
        assert np.abs(image - reference.edit(inversion[:batch], *deltas).astype(int)).max() <= 1
    with pytest.raises(ValueError, match=r"batch 9 outside 1\.\.8"):
        runtime.warm_up(9)


@pytest.mark.slow
@pytest.mark.timeout(3600)  # the C++ compiler takes its time
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler (g++) here")
def test_compiled_gives_the_same(
    demo: Bundle, reference: EditSession, images: np.ndarray, deltas: tuple[np.ndarray, np.ndarray]
) -> None:
    inversion = reference.invert(images[:1])
    image = EditSession(demo, "torch", mode="compiled").edit(inversion, *deltas)
    assert np.abs(image - reference.edit(inversion, *deltas).astype(int)).max() <= 1


@pytest.mark.gpu
def test_tf32_and_fp32_on_a_gpu(
    demo: Bundle, reference: EditSession, images: np.ndarray, deltas: tuple[np.ndarray, np.ndarray]
) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    inversion = reference.invert(images)
    expected = reference.edit(inversion, *deltas).astype(int)
    before = torch.backends.cudnn.allow_tf32
    for precision, limit in (("fp32", 1), ("tf32", 6), ("fp16", 6)):
        session = EditSession(demo, "torch", device="cuda", precision=precision)
        assert np.abs(session.edit(session.hold(inversion), *deltas) - expected).max() <= limit
    assert torch.backends.cudnn.allow_tf32 == before
