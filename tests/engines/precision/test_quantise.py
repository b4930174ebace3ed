from __future__ import annotations

import itertools
from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper

from engines.bundle.layers import LITTLE, NO_PRODUCT, THIN
from engines.errors import EngineError
from engines.precision import lower, quantise
from engines.precision.calibrate import calibrate
from engines.precision.emulate import Emulated
from engines.precision.typed import describe, retype
from tests.engines.precision.conftest import feeds_of, make_model, run

DTYPES = {"int8": "int8", "fp8": "float8_e4m3fn"}


def _convolution(weight: np.ndarray, **attributes):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)]
    channels = weight.shape[1] * attributes.get("group", 1)
    return make_model(nodes, {"x": ["batch", channels, 4, 4]}, ["y"], {"w": weight})


@pytest.fixture(scope="module")
def typed(shipped, tmp_path_factory):
    """A shipped graph in 8 bits, its ranges measured on random inputs."""
    made = {}

    def make(graph: str, precision: str):
        if (graph, precision) not in made:
            folder = tmp_path_factory.mktemp(f"{graph}-{precision}")
            peaks = calibrate(shipped, graph, [feeds_of(shipped.graph(graph).inputs, 2)], precision, threads=1)
            made[graph, precision] = lower(shipped, graph, precision, folder, peaks=peaks)
        return made[graph, precision]

    return make


@given(
    w=arrays(np.float32, (16, 16, 1, 1), elements=st.floats(-4, 4, width=16)),
    x=arrays(np.float32, (1, 16, 4, 4), elements=st.floats(-3, 3, width=16)),
)
@settings(max_examples=30, deadline=None)
def test_int8_is_integer_arithmetic(w, x):
    """The graph, emulated, is what 8-bit integers, summed exactly, and two scales give."""
    model = _convolution(w)
    retype(model, "int8", peaks={"conv": 2.0})
    have = Emulated(model, threads=1).run({"x": x})["y"]
    step = np.float16(2.0 / 127)
    steps = np.maximum(np.abs(w).max(axis=(1, 2, 3)) / 127, 2.0**-14).astype(np.float16)
    integers = np.clip(np.rint(x / np.float32(step)), -128, 127).astype(np.int64)
    weights = np.rint(w[:, :, 0, 0] / steps.astype(np.float32)[:, None]).astype(np.int64)
    total = np.einsum("oi,bihw->bohw", weights, integers) * (float(step) * steps.astype(float)[None, :, None, None])
    half = total.astype(np.float16)
    assert np.abs(have - half).max() <= np.spacing(np.abs(half).max())


@given(x=arrays(np.float32, (1, 16, 4, 4), elements=st.floats(-100, 100, width=16)))
@settings(max_examples=20, deadline=None)
def test_fp8_is_rounded_to_e4m3(x):
    model = _convolution(np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1))
    retype(model, "fp8", peaks={"conv": 56.0})
    have = Emulated(model, threads=1).run({"x": x})["y"]
    step = np.float32(np.float16(56 / 448))
    # Beyond the range it saturates: e4m3fn has no infinity.
    want = np.clip(x / step, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * step
    np.testing.assert_allclose(have, want, rtol=2e-3)


@pytest.mark.parametrize(
    ("weight", "attributes", "reason"),
    [
        ((16, 16, 3, 3), {"pads": [1] * 4}, None),
        ((16, 3, 3, 3), {"pads": [1] * 4}, quantise.NARROW),
        ((24, 16, 1, 1), {}, quantise.NARROW),
        ((32, 1, 3, 3), {"group": 32, "pads": [1] * 4}, quantise.GROUPED),
    ],
)
def test_convolutions_by_their_weights(weight, attributes, reason):
    model = _convolution(np.ones(weight, np.float32), **attributes)
    reasons = retype(model, "int8", peaks={"conv": 1.0})
    assert reasons == ({} if reason is None else {"conv": reason})
    layer = next(layer for layer in describe(model, "made", "int8", reasons).layers if layer.operator == "Conv")
    assert (layer.precision, layer.reason) == (("int8", None) if reason is None else ("float16", reason))


def _separable(filters: np.ndarray, weight: np.ndarray):
    nodes = [
        helper.make_node("Conv", ["x", "d"], ["f"], name="filter", pads=[1] * 4, group=len(filters)),
        helper.make_node("Conv", ["f", "w"], ["y"], name="conv"),
    ]
    return make_model(nodes, {"x": ["batch", len(filters), 8, 8]}, ["y"], {"d": filters, "w": weight})


def test_channels_behind_a_depthwise_convolution_are_balanced():
    """One channel a hundred times as large as the others: rounded together, these would be lost."""
    source = np.random.default_rng(0)
    sizes = np.append(np.full(31, 0.01), 1.0)[:, None, None, None]
    filters = (sizes * source.normal(size=(32, 1, 3, 3))).astype(np.float32)
    weight = (source.normal(size=(16, 32, 1, 1)) / sizes.reshape(1, 32, 1, 1)).astype(np.float32)
    feeds = {"x": source.normal(size=(2, 32, 8, 8)).astype(np.float32)}
    expected = run(_separable(filters, weight), feeds)["y"]
    watched = _separable(filters, weight)
    watched.graph.outputs.append(next(n for n in watched.graph if n.name == "filter").outputs[0])
    peaks = np.abs(run(watched, feeds)["f"]).max(axis=(0, 2, 3))

    def error(peak) -> float:
        model = _separable(filters, weight)
        assert retype(model, "int8", peaks={"conv": peak}) == {"filter": quantise.GROUPED}
        return float(np.abs(Emulated(model, threads=1).run(feeds)["y"] - expected).max() / np.abs(expected).max())

    assert error(peaks.tolist()) < 0.06 < 0.2 < error(float(peaks.max()))


def test_what_cannot_be_balanced_takes_the_largest_channel():
    weight = np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1)
    plain, by_channel = _convolution(weight), _convolution(weight)
    retype(plain, "int8", peaks={"conv": 3.0})
    retype(by_channel, "int8", peaks={"conv": [1.0] * 15 + [3.0]})
    feeds = {"x": np.random.default_rng(1).normal(size=(1, 16, 4, 4)).astype(np.float32)}
    outputs = [Emulated(model, threads=1).run(feeds)["y"] for model in (plain, by_channel)]
    assert np.array_equal(*outputs)


def test_products_without_weights_and_of_vectors():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="project"),
        helper.make_node("Transpose", ["a"], ["t"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "t"], ["s"], name="attend"),
        helper.make_node("ReduceMean", ["a", "places"], ["v"], name="mean", keepdims=1),
        helper.make_node("MatMul", ["v", "w"], ["y"], name="code"),
    ]
    weights = {"w": np.ones((32, 32), np.float32), "places": np.array([1], np.int64)}
    model = make_model(nodes, {"x": ["batch", 16, 32]}, ["s", "y"], weights)
    reasons = retype(model, "int8", peaks={"project": 1.0})
    assert reasons == {"attend": quantise.COMPUTED, "code": quantise.VECTOR}
    layers = {layer.name: layer for layer in describe(model, "made", "int8", reasons).layers}
    assert (layers["project"].precision, layers["mean"].reason) == ("int8", NO_PRODUCT)


def test_products_of_the_same_data_round_it_once():
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}.y"], name=name) for name in ("q", "k", "v")]
    weights = {name: np.ones((16, 16), np.float32) for name in ("q", "k", "v")}
    model = make_model(nodes, {"x": ["batch", 8, 16]}, [f"{name}.y" for name in weights], weights)
    retype(model, "int8", peaks=dict.fromkeys(weights, 1.0))
    operators = Counter(node.op_type for node in model.graph)
    assert operators["QuantizeLinear"] == 1 and operators["DequantizeLinear"] == 4


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("graph", ["invert", "edit", "reconstruct"])
def test_a_quantised_graph_is_valid_and_its_weights_stand_once(typed, graph, precision):
    made = typed(graph, precision)
    onnx.checker.check_model(str(made.file), full_check=True)
    report = made.report
    # The first stages of the encoders have fewer channels than 8-bit kernels take.
    assert report.share(DTYPES[precision]) > (0.9 if graph == "invert" else 0.96)
    for layer in report.layers:
        if layer.macs and layer.precision != DTYPES[precision]:
            assert layer.reason not in (None, NO_PRODUCT), layer.name
    # What is on disk is what the layers hold: no weight is left in FP16 beside its 8 bits.
    held = sum(layer.weight_bytes for layer in report.layers)
    on_disk = sum(file.stat().st_size for file in made.file.parent.glob(f"{graph}.weights"))
    assert on_disk < 1.1 * held


def test_what_is_the_picture_and_what_are_styles_stay_wide(typed):
    layers = {layer.name: layer for layer in typed("reconstruct", "int8").report.layers}
    by_reason = Counter(layer.reason for layer in layers.values() if layer.macs and layer.precision != "int8")
    assert by_reason[quantise.TO_RGB] == 3 and by_reason[quantise.GROUPED] == 2
    assert {layer.precision for layer in layers.values() if layer.operator in ("Gemm", "Reciprocal")} == {"float32"}
    quantised = [layer for layer in layers.values() if layer.precision == "int8" and layer.macs]
    assert Counter(layer.operator for layer in quantised) == {"Conv": 2, "ConvTranspose": 2}


def test_weights_have_a_scale_per_output_channel(typed):
    """Of a transposed convolution that is its second axis."""
    model = onnx.load(typed("reconstruct", "int8").file, load_external_data=False)
    shapes = {value.name: tuple(value.dims) for value in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or not node.input[1].endswith("dequantise_weights.out"):
            continue
        source = next(other for other in model.graph.node if node.input[1] in other.output)
        (axis,) = (attribute.i for attribute in source.attribute if attribute.name == "axis")
        assert axis == (1 if node.op_type == "ConvTranspose" else 0)
        assert shapes[source.input[1]] == (shapes[source.input[0]][axis],)


@pytest.mark.parametrize("precision", DTYPES)
def test_onnx_runtime_runs_it(typed, shipped, precision):
    """And gives, but for FP16's rounding, what FP32 gives: the noise of 8 bits is far below the picture."""
    made = typed("reconstruct", precision)
    entry = shipped.graph("reconstruct")
    feeds = feeds_of(entry.inputs, 2)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    (have,) = onnxruntime.InferenceSession(made.file, options).run(None, feeds)
    (want,) = onnxruntime.InferenceSession(shipped.path / entry.file, options).run(None, feeds)
    assert 0 < np.abs(have.astype(float) - want).mean() < 4


def test_widening_gives_a_product_back_to_fp16(typed, shipped, tmp_path):
    base = typed("reconstruct", "int8").report
    chosen = next(layer for layer in base.layers if layer.operator == "ConvTranspose" and layer.precision == "int8")
    activation = next(layer for layer in base.layers if layer.operator == "LeakyRelu")
    peaks = calibrate(shipped, "reconstruct", [feeds_of(shipped.graph("reconstruct").inputs, 1)], "int8", threads=1)
    keep_fp32 = {chosen.name, activation.name}
    wide = lower(shipped, "reconstruct", "int8", tmp_path, keep_fp32=keep_fp32, peaks=peaks)
    layers = {layer.name: layer for layer in wide.report.layers}
    assert (layers[chosen.name].precision, layers[chosen.name].reason) == ("float16", quantise.HALF)
    # Whatever is no 8-bit product goes where it went before: to FP32.
    assert layers[activation.name].precision == "float32"
    onnx.checker.check_model(str(wide.file), full_check=True)


def test_ranges_that_are_missing(shipped, tmp_path):
    with pytest.raises(EngineError, match="precision int8 needs the ranges of activations, which are measured on"):
        lower(shipped, "reconstruct", "int8", tmp_path)
    with pytest.raises(EngineError, match=r"fp8 needs the range of what enters node_conv.*, and it was not measured"):
        lower(shipped, "reconstruct", "fp8", tmp_path, peaks={})


def test_on_a_cpu_little_work_and_few_channels_stay_wide() -> None:
    """A chain of 1x1 convolutions at 32 x 32: 512 to 512 channels, 512 to 16, 16 to 16, 16 to 512."""
    widths = (512, 512, 16, 16, 512)
    pairs = list(itertools.pairwise(widths))
    nodes = [helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"c{i}") for i in range(len(pairs))]
    weights = {f"w{n}": np.ones((o, i, 1, 1), np.float32) for n, (i, o) in enumerate(pairs)}
    lowered = make_model(nodes, {"x0": ["batch", 512, 32, 32]}, [f"x{len(pairs)}"], weights)
    reasons = retype(lowered, "int8", peaks={f"c{i}": 1.0 for i in range(len(pairs))}, single=True)
    assert reasons == {"c1": THIN, "c2": LITTLE, "c3": THIN}
    assert {str(value.dtype) for value in lowered.graph.initializers.values()} == {"INT8", "FLOAT"}
