from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engines import runtimes
from engines.bundle import Bundle, BundleWriter, ProducedBy
from engines.contracts import PARTS, PIPELINES
from engines.errors import BundleError, RuntimeUnavailableError
from engines.family import ModelFamily
from engines.runtimes import available, create, register
from engines.runtimes.onnxruntime import PROVIDERS, OnnxRuntime, _check_provider


def test_the_registry() -> None:
    assert "onnxruntime" in available()


@pytest.mark.parametrize("graph", [*PARTS, *PIPELINES])
def test_every_graph_loads_runs_and_gives_what_the_manifest_says(tiny_bundle: Bundle, graph: str) -> None:
    runtime = create("onnxruntime", tiny_bundle, graph, threads=1)
    assert list(runtime.inputs) == tiny_bundle.graph(graph).inputs
    runtime.warm_up()
    for batch in (1, 3):
        feeds = {
            spec.name: np.ones([batch if isinstance(d, str) else d for d in spec.shape], spec.dtype)
            for spec in runtime.inputs
        }
        values = runtime.run(feeds)
        assert list(values) == [spec.name for spec in runtime.outputs]
        for spec in runtime.outputs:
            assert values[spec.name].dtype == spec.dtype
            assert values[spec.name].shape == (batch, *spec.shape[1:])


def test_a_plain_session_by_path_gives_the_same(tiny_bundle: Bundle) -> None:
    feeds = {
        spec.name: np.full([2 if isinstance(d, str) else d for d in spec.shape], 0.5, spec.dtype)
        for spec in tiny_bundle.graph("edit").inputs
    }
    plain = onnxruntime.InferenceSession(tiny_bundle.path / "graphs/edit.onnx", providers=["CPUExecutionProvider"]).run(
        ["image"], feeds
    )[0]
    assert np.array_equal(create("onnxruntime", tiny_bundle, "edit").run(feeds)["image"], plain)
    assert plain.std() > 1


def test_strided_inputs_are_taken(tiny_bundle: Bundle) -> None:
    runtime = create("onnxruntime", tiny_bundle, "invert")
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3, 2), np.uint8).transpose(3, 0, 1, 2)
    values, again = runtime.run({"image": image}), runtime.run({"image": image.copy()})
    assert all(np.array_equal(values[name], again[name]) for name in values)


def test_wrong_feeds_name_the_contract(tiny_bundle: Bundle) -> None:
    runtime = create("onnxruntime", tiny_bundle, "invert")
    takes = r"graph invert: input image is float64 \(1, 12, 16, 3\); it takes uint8 \(batch, 12, 16, 3\), batch = 1"
    with pytest.raises(ValueError, match=takes):
        runtime.run({"image": np.zeros((1, 12, 16, 3))})
    with pytest.raises(ValueError, match="graph invert needs input image"):
        runtime.run({})


def test_weights_come_from_memory_and_not_from_the_working_directory(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong file of the right name in the working directory, and none in the bundle once its bytes were read."""
    (tmp_path / "weights.safetensors").write_bytes(bytes(len(tiny_bundle.read("graphs/weights.safetensors"))))
    monkeypatch.chdir(tmp_path)
    runtime = create("onnxruntime", tiny_bundle, "reconstruct")
    feeds = {s.name: np.full([1, *s.shape[1:]], 0.5, s.dtype) for s in runtime.inputs}
    assert runtime.run(feeds)["image"].std() > 1


def broken(path: Path, family: ModelFamily, model: bytes) -> Bundle:
    produced_by = ProducedBy(tools={}, command="pytest", date="2026-01-01")
    with BundleWriter(
        path, name="broken", family=family, precision="fp16", licence="CC0-1.0", produced_by=produced_by
    ) as writer:
        writer.add_graph("edit", model)
    return Bundle.load(path)


def test_graphs_that_cannot_be_loaded(tiny_bundle: Bundle, tiny_family: ModelFamily, tmp_path: Path) -> None:
    for i, model in enumerate((b"", b"not a graph", tiny_bundle.read("graphs/edit.onnx"))):
        bundle = broken(tmp_path / str(i), tiny_family, model)
        with pytest.raises(BundleError, match=r"broken: graphs/edit\.onnx cannot be loaded by ONNX Runtime") as caught:
            create("onnxruntime", bundle, "edit")
        assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="there is no graph 'teapot'"):
        create("onnxruntime", tiny_bundle, "teapot")


def test_external_data_outside_the_bundle_is_never_opened(
    tiny_bundle: Bundle, tiny_family: ModelFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle lacks the weights; a file of that name in the working directory must not stand in for them."""
    (tmp_path / "weights.safetensors").write_bytes(tiny_bundle.read("graphs/weights.safetensors"))
    bundle = broken(tmp_path / "b", tiny_family, tiny_bundle.read("graphs/edit.onnx"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="cannot be loaded"):
        create("onnxruntime", bundle, "edit")


def test_a_graph_that_is_not_what_the_manifest_says(tiny_bundle: Bundle, tmp_path: Path) -> None:
    manifest = tiny_bundle.manifest
    swapped = manifest.graphs["edit"].model_copy(update={"file": "graphs/invert.onnx"})
    bundle = Bundle(tiny_bundle.path, manifest.model_copy(update={"graphs": {"edit": swapped}}))
    with pytest.raises(BundleError, match="is not what the manifest says: input w is missing"):
        create("onnxruntime", bundle, "edit")


def test_unknown_and_missing_runtimes(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        RuntimeUnavailableError, match="unknown runtime 'teapot'; there are onnxruntime, openvino, tensorrt"
    ):
        create("teapot", tiny_bundle, "edit")

    monkeypatch.setattr(runtimes, "_RUNTIMES", dict(runtimes._RUNTIMES))
    register("other", ("numpy", "no_such_package"), "no-such-package", lambda: OnnxRuntime)
    assert "other" not in available()
    with pytest.raises(
        RuntimeUnavailableError, match=r"needs the package no_such_package, .* pip install no-such-pack"
    ):
        create("other", tiny_bundle, "edit")

    def cannot() -> type:
        raise ImportError("libfoo.so: cannot open shared object file")

    register("more", ("no_such_package", "nor_this"), "both", lambda: OnnxRuntime)
    with pytest.raises(RuntimeUnavailableError, match="packages no_such_package and nor_this, which are not installed"):
        create("more", tiny_bundle, "edit")

    register("other", ("numpy",), "numpy", cannot)
    with pytest.raises(RuntimeUnavailableError, match=r"installed but cannot be imported: libfoo\.so"):
        create("other", tiny_bundle, "edit")


def test_a_runtime_may_be_registered_by_a_package_above(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_RUNTIMES", {k: v for k, v in runtimes._RUNTIMES.items() if k != "torch"})
    with pytest.raises(RuntimeUnavailableError, match=r"import bench\.runtimes first \(it needs pip install"):
        create("torch", tiny_bundle, "edit")
    register("mine", ("numpy",), "numpy", lambda: OnnxRuntime)
    assert "mine" in available()
    assert isinstance(create("mine", tiny_bundle, "edit"), OnnxRuntime)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "nvtensorrtrtx"])
def test_an_absent_provider_is_an_error_and_not_the_cpu(tiny_bundle: Bundle, provider: str) -> None:
    if PROVIDERS[provider] in onnxruntime.get_available_providers():
        pytest.skip(f"this ONNX Runtime has {provider}")
    with pytest.raises(RuntimeUnavailableError) as caught:
        create("onnxruntime", tiny_bundle, "edit", provider=provider)
    assert PROVIDERS[provider] in str(caught.value)
    assert "onnxruntime.get_available_providers() here gives" in str(caught.value)
    with pytest.raises(RuntimeUnavailableError, match="unknown provider 'gpu'; there are cpu, cuda"):
        create("onnxruntime", tiny_bundle, "edit", provider="gpu")


def test_who_runs_what(tiny_bundle: Bundle) -> None:
    runtime = OnnxRuntime.load(tiny_bundle, "generator", threads=1)
    assert set(runtime.assignment) == {"CPUExecutionProvider"}
    assert runtime.assignment["CPUExecutionProvider"]["ConvTranspose"] == 1


def test_a_provider_that_falls_back_is_refused(tiny_bundle: Bundle) -> None:
    """The check that follows loading, on a real CPU session that is said to have been asked for on a GPU."""
    session = onnxruntime.InferenceSession(tiny_bundle.path / "graphs/edit.onnx", providers=["CPUExecutionProvider"])
    with pytest.raises(RuntimeUnavailableError, match="provider cuda is in this ONNX Runtime but does not start"):
        _check_provider(session, "cuda", "CUDAExecutionProvider", {}, "edit")
    strays = {"OtherExecutionProvider": Counter(Shape=2, FusedConv=1, MatMul=3)}
    with pytest.raises(RuntimeUnavailableError, match="provider cpu does not take FusedConv, MatMul of graph edit"):
        _check_provider(session, "cpu", "CPUExecutionProvider", strays, "edit")
    _check_provider(session, "cpu", "CPUExecutionProvider", {"OtherExecutionProvider": Counter(Shape=2)}, "edit")


def test_threads_must_not_be_negative(tiny_bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="threads must be 0 or more"):
        create("onnxruntime", tiny_bundle, "edit", threads=-1)


@pytest.mark.gpu
@pytest.mark.skipif("CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="no CUDA provider")
def test_cuda_agrees_with_the_cpu(tiny_bundle: Bundle) -> None:
    cpu, cuda = (create("onnxruntime", tiny_bundle, "edit", provider=name) for name in ("cpu", "cuda"))
    rng = np.random.default_rng(0)
    feeds = {s.name: rng.normal(size=(2, *s.shape[1:])).astype(s.dtype) for s in cpu.inputs}
    assert np.abs(cpu.run(feeds)["image"].astype(int) - cuda.run(feeds)["image"]).max() <= 1
