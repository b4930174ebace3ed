"""TensorRT and TensorRT-RTX: all that comes before the GPU, and with one, parity with ONNX Runtime."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.bundle.engine_manifest import OptimizationProfile
from engines.bundle.folders import EngineFolder
from engines.bundle.preflight import HostInfo
from engines.bundle.signing import open_engine
from engines.errors import BundleError, EdgeditError, EngineError, RuntimeUnavailableError, SignatureError
from engines.runtimes import _RUNTIMES, create, register
from engines.runtimes.backend import Backend
from engines.runtimes.tensorrt import TensorRT, TensorRTRTX
from engines.runtimes.trt_engine import (
    check_profile,
    check_tensors,
    deserialize,
    driver_version,
    error_recorder,
    stream_weights,
)
from tests.engines.engine_folders import flip, write_engine

RTX = HostInfo("TensorRT-RTX", "11.4.0", "8.6")


def read(bundle: Bundle, runtime: str, graph: str, found: HostInfo, **options: Any) -> tuple[EngineFolder, bytes]:
    """The folder and the bytes that a runtime would load."""
    folder = open_engine(bundle, runtime, graph, found, **options)
    return folder, folder.read(folder.graph(graph).file)


@pytest.fixture
def built(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    path = shutil.copytree(tiny_bundle_path, tmp_path / "tiny")
    write_engine(path)
    return path


# What comes first is told first: what is installed, the engine's digest, where it came from, what it was built for.


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_missing_packages_are_named_before_anything_is_read(tiny_bundle: Bundle, runtime: str) -> None:
    if importlib.util.find_spec("pycuda"):
        pytest.skip("PyCUDA is installed here")
    with pytest.raises(RuntimeUnavailableError) as caught:
        create(runtime, tiny_bundle, "edit")
    message = str(caught.value)
    assert message.startswith(f"runtime {runtime} needs the package")
    assert "pycuda" in message and "pip install 'edgedit[" in message and "\n" not in message


def test_preflight_in_order(built: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(built)
    folder, data = read(bundle, "tensorrt-rtx", "edit", RTX)
    assert data == (folder.path / "edit.engine").read_bytes()
    with pytest.raises(BundleError, match="there is no graph 'teapot'"):
        read(bundle, "tensorrt-rtx", "teapot", RTX)
    with pytest.raises(EngineError, match=r"no tensorrt engine of edit; there are tensorrt-rtx-sm86-fp16 .*build"):
        read(bundle, "tensorrt", "edit", HostInfo("TensorRT", "11.4.0", "8.6"))
    with pytest.raises(SignatureError, match=r"tiny is not signed|signatures need"):
        read(bundle, "tensorrt-rtx", "edit", RTX, public_key=tmp_path / "key.pem")
    other = HostInfo("TensorRT-RTX", "11.3.0", "8.9")
    with pytest.raises(EngineError, match=r"built for SM86 by TensorRT-RTX 11\.4\.0, found SM89 and TensorRT-RTX"):
        read(bundle, "tensorrt-rtx", "edit", other)
    flip(folder.path / "edit.engine")
    with pytest.raises(EngineError, match=r"edit\.engine is damaged \(its digest differs\)"):
        read(bundle, "tensorrt-rtx", "edit", RTX)
    flip(folder.path / "engine.json")
    with pytest.raises(EngineError, match=r"engine\.json does not match engine\.sha256"):
        read(bundle, "tensorrt-rtx", "edit", other, public_key=tmp_path / "key.pem")


@pytest.mark.parametrize(
    ("extent", "advice"),
    [(9, "--batch-range 1:2:9"), (0, "--batch-range 0:2:8"), (100, "--batch-range 1:2:100"), (1, None), (8, None)],
)
def test_the_profile(extent: int, advice: str | None) -> None:
    profile = OptimizationProfile(min=1, opt=2, max=8)
    if advice is None:
        check_profile("edit", profile, {"batch": extent})
        return
    with pytest.raises(ValueError, match=rf"graph edit: batch {extent} outside 1\.\.8, which .* {advice}"):
        check_profile("edit", profile, {"batch": extent})


def test_a_profile_of_large_batches_refuses_small_ones() -> None:
    with pytest.raises(ValueError, match=r"batch 2 outside 4\.\.8.* --batch-range 2:4:8"):
        check_profile("edit", OptimizationProfile(min=4, opt=4, max=8), {"batch": 2})


def test_options_that_make_no_sense(tiny_bundle: Bundle) -> None:
    for options, message in (({"streams": 0}, "streams must be 1"), ({"memory_budget": 0}, "memory_budget must be 1")):
        with pytest.raises(ValueError, match=message):
            TensorRT.load(tiny_bundle, "edit", **options)
    register("other", (), "", lambda: TensorRT)
    try:
        with pytest.raises(EdgeditError, match="runtime other has no option threads; it has precision, target, device"):
            create("other", tiny_bundle, "edit", threads=1)
    finally:
        del _RUNTIMES["other"]


def test_the_drivers_version(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert driver_version(file) is None
    kernel = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)"
    file.write_text(f"{kernel}\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n")
    assert driver_version(file) == "580.65.06"
    file.write_text("nothing of the kind")
    assert driver_version(file) is None


class _Streaming:
    """The figures of an engine, as its runtime gives them."""

    def __init__(self, streamable: int, scratch: int) -> None:
        self.streamable_weights_size = streamable
        self.device_memory_size_v2 = scratch
        self.weight_streaming_budget_v2 = streamable


def test_weight_streaming(built: Path) -> None:
    entry = read(Bundle.load(built), "tensorrt-rtx", "edit", RTX)[0].graph("edit")
    entry = entry.model_copy(update={"weight_bytes": 1000})
    engine = _Streaming(900, 50)
    # 100 bytes cannot be streamed, and 50 are scratch.
    for budget, streamed in ((650, 500), (10_000, 900), (150, 0)):
        stream_weights(engine, entry, budget, "tensorrt-sm86-fp16")
        assert engine.weight_streaming_budget_v2 == streamed
    with pytest.raises(EngineError, match="beside the weights that it can stream, more than the memory budget of"):
        stream_weights(engine, entry, 149, "tensorrt-sm86-fp16")
    with pytest.raises(EngineError, match="cannot stream its weights: build it with --memory-budget"):
        stream_weights(_Streaming(0, 50), entry, 1049, "tensorrt-sm86-fp16")
    stream_weights(_Streaming(0, 50), entry, 1050, "tensorrt-sm86-fp16")


class _Tensors:
    """An engine's list of tensors."""

    def __init__(self, *tensors: tuple[str, str, str, tuple[int, ...]]) -> None:
        self.tensors = {name: (mode, dtype, shape) for name, mode, dtype, shape in tensors}
        self.num_io_tensors = len(tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=self.tensors[name][0])

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=self.tensors[name][1])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name][2]


def test_an_engine_of_other_tensors_is_refused(built: Path) -> None:
    entry = read(Bundle.load(built), "tensorrt-rtx", "invert", RTX)[0].graph("invert")
    codes = [(name, "OUTPUT", "FLOAT", (-1, 6, 8)) for name in ("w", "w_e")]
    features = [(name, "OUTPUT", "FLOAT", (-1, 8, 8, 8)) for name in ("feature", "generator_feature")]
    image = ("image", "INPUT", "UINT8", (-1, 12, 16, 3))
    check_tensors(_Tensors(image, *codes, *features), entry, "tiny: edit.engine")
    for tensors, message in (
        (((image[0], "INPUT", "FLOAT", image[3]), *codes, *features), "input image is float32 .* instead of uint8"),
        ((image, *features), "output w is missing"),
        ((image, ("w", "OUTPUT", "FLOAT", (1, 6, 8)), codes[1], *features), r"output w is float32 \(1, 6, 8\)"),
        ((image, ("w", "OUTPUT", "BF16", (-1, 6, 8)), codes[1], *features), "has w of type BF16"),
    ):
        with pytest.raises(EngineError, match=message):
            check_tensors(_Tensors(*tensors), entry, "tiny: edit.engine")


@pytest.fixture(scope="module")
def rtx() -> Backend:
    from engines.runtimes.backend import load

    try:
        return load("tensorrt-rtx")
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.rtx
def test_what_the_library_says_of_bytes_that_are_no_engine_reaches_the_user(rtx: Backend) -> None:
    with pytest.raises(
        EngineError, match=r"^tiny: edit\.engine does not load in TensorRT-RTX [\d.]+: .*magicTag"
    ) as caught:
        deserialize(rtx, b"no engine" * 100, "tiny: edit.engine")
    assert "\n" not in str(caught.value)


@pytest.mark.rtx
def test_recorders_keep_errors_apart(rtx: Backend) -> None:
    """Two objects of the library with a recorder each: what goes wrong in one is not told of the other."""
    first, second = error_recorder(rtx), error_recorder(rtx)
    runtimes = [rtx.api.Runtime(rtx.logger) for _ in range(2)]
    for runtime, recorder in zip(runtimes, (first, second), strict=True):
        runtime.error_recorder = recorder
    assert runtimes[0].deserialize_cuda_engine(b"no engine" * 100) is None
    assert first.num_errors() and not second.num_errors()
    assert "magicTag" in first.text()
    assert not first.num_errors()
    # Code inside an engine that would run on the host is never allowed.
    assert not any(runtime.engine_host_code_allowed for runtime in runtimes)


@pytest.mark.rtx
def test_an_engine_that_was_built_here_passes_every_check_before_the_gpu(rtx: Backend, tmp_path: Path) -> None:
    from engines.building.build import build
    from tests.engines.building.conftest import write_small

    # Of this bundle's `edit` the styles, which are FP32, are too great a share for an FP16 build.
    path = write_small(tmp_path / "small")
    manifest = build(path, runtime="tensorrt-rtx", target="sm86", precision="fp16", graphs=("reconstruct",))
    bundle = Bundle.load(path)
    found = HostInfo(rtx.title, rtx.version, "8.6", "999.0")
    folder, data = read(bundle, "tensorrt-rtx", "reconstruct", found)
    assert folder.name == manifest.folder and len(data) == manifest.files["reconstruct.engine"].bytes
    with pytest.raises(EngineError, match=r"was built for SM86 by .*, found SM120: run `edgedit build .*sm120"):
        read(bundle, "tensorrt-rtx", "reconstruct", HostInfo(rtx.title, rtx.version, "12.0"))
    with pytest.raises(EngineError, match="found no GPU"):
        read(bundle, "tensorrt-rtx", "reconstruct", HostInfo(rtx.title, rtx.version))
    files = {**bundle.manifest.files, "graphs/weights.safetensors": bundle.manifest.files["graphs/edit.onnx"]}
    other = Bundle(bundle.path, bundle.manifest.model_copy(update={"files": files}))
    with pytest.raises(EngineError, match="was built from other weights"):
        read(other, "tensorrt-rtx", "reconstruct", found)


# With a GPU.


def _parity(runtime: type[TensorRT], tmp_path: Path) -> None:
    """Inversion and edits of a photo by engines built here, held on the GPU, against ONNX Runtime on the CPU."""
    from engines.building.build import build
    from engines.session import EditSession
    from tests.random_bundle import RANDOM_BUNDLE

    path = shutil.copytree(RANDOM_BUNDLE, tmp_path / "demo")
    build(path, runtime=runtime.name, target="current", precision="fp32")
    cpu, gpu = EditSession(path), EditSession(path, runtime.name, precision="fp32")
    images = np.random.default_rng(0).integers(0, 256, (3, *cpu.family.image_shape, 3), np.uint8)
    here, there = cpu.invert(images), gpu.invert(images)
    np.testing.assert_allclose(there.w, here.w, atol=2e-3)
    delta = np.random.default_rng(1).normal(0, 0.2, here.w.shape).astype(np.float32)
    expected = cpu.edit(there.host(), delta).astype(int)
    for _ in range(3):  # enqueued, captured, launched
        assert np.abs(gpu.edit(there, delta) - expected).max() <= 1
    assert gpu._loaded["edit"].capture_refused == {}  # type: ignore[attr-defined]
    assert np.abs(gpu.reconstruct(there) - cpu.reconstruct(here).astype(int)).max() <= 2
    with pytest.raises(ValueError, match=r"batch 9 outside 1\.\.8"):
        gpu.invert(np.repeat(images, 3, axis=0))


@pytest.mark.gpu
@pytest.mark.trt
@pytest.mark.slow
def test_tensorrt_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    pytest.importorskip("pycuda", reason="PyCUDA is not installed")
    _parity(TensorRT, tmp_path)


@pytest.mark.gpu
@pytest.mark.rtx
@pytest.mark.slow
def test_tensorrt_rtx_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    pytest.importorskip("pycuda", reason="PyCUDA is not installed")
    _parity(TensorRTRTX, tmp_path)
