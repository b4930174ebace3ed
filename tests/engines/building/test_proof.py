from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from engines.building.builder import parse
from engines.building.proof import check_targets, describe, prove
from engines.bundle import Bundle
from engines.bundle.layers import COMPUTED, GROUPED, NO_PRODUCT, Layer, LayerReport
from engines.errors import EngineError
from engines.precision import TypedGraph, lower
from engines.precision.calibrate import calibrate
from engines.runtimes.backend import Backend
from tests.engines.building.conftest import Typed, ones
from tests.engines.precision.conftest import feeds_of
from tests.random_bundle import RANDOM_BUNDLE

pytestmark = pytest.mark.rtx

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT


def report(rtx: Backend, graph: TypedGraph, precision: str = "fp16") -> LayerReport:
    with rtx.messages() as messages:
        builder = rtx.api.Builder(rtx.logger)
        network = parse(rtx, builder, graph.file, graph.name, messages)
        before = [tuple(network.get_layer(i).get_output(0).shape) for i in range(network.num_layers)]
        found = describe(rtx.api, network, graph.name, precision, graph.report)
        after = [tuple(network.get_layer(i).get_output(0).shape) for i in range(network.num_layers)]
    # What is built afterwards is the same network.
    assert after == before
    return found


def mixed(typed: Typed, reasons: dict[str, str] | None = None, narrow: int = 100) -> TypedGraph:
    """`narrow` FP16 convolutions and one in FP32 between casts."""
    names = ["x", *(f"a{i}" for i in range(narrow))]
    nodes = [helper.make_node("Conv", [a, "w"], [b], name=f"narrow_{b}", pads=[1] * 4) for a, b in pairwise(names)]
    nodes += [
        helper.make_node("Cast", [names[-1]], ["s"], name="to_single", to=SINGLE),
        helper.make_node("Conv", ["s", "v"], ["t"], name="wide", pads=[1] * 4),
        helper.make_node("Cast", ["t"], ["y"], name="to_half", to=HALF),
    ]
    weights = {"w": ones(4, 4, 3, 3), "v": ones(4, 4, 3, 3, dtype=np.float32)}
    return typed(nodes, weights, reasons=reasons)


def test_asked_fp16_and_silently_fp32(rtx: Backend, typed: Typed) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="plain", pads=[1] * 4)]
    found = report(rtx, typed(nodes, {"w": ones(4, 4, 3, 3, dtype=np.float32)}, dtype="float32"))
    with pytest.raises(EngineError, match=r"asked for in fp16, and 0.0% of its MACs are \(98% must be\): layer plain"):
        prove(found, "fp16")
    assert prove(found, "fp32").share == 1.0


def test_asked_fp32_and_partly_fp16(rtx: Backend, typed: Typed) -> None:
    with pytest.raises(EngineError, match=r"asked for in fp32, and .* of its MACs are \(100% must be\)"):
        prove(report(rtx, mixed(typed), "fp32"), "fp32")


def test_fp32_that_nothing_explains(rtx: Backend, typed: Typed) -> None:
    found = report(rtx, mixed(typed))
    assert found.share("float16") == pytest.approx(100 / 101)
    with pytest.raises(
        EngineError, match=r"layer wide \(CONVOLUTION\) computes 9,216 MACs in float32, and nothing says"
    ):
        prove(found, "fp16")


def test_fp32_with_a_reason_is_listed(rtx: Backend, typed: Typed) -> None:
    proof = prove(report(rtx, mixed(typed, {"wide": "measured"})), "fp16")
    assert proof.share == pytest.approx(100 / 101) and proof.macs == 101 * 9216
    assert [(w.name, w.operator, w.reason, w.macs) for w in proof.wide] == [("wide", "CONVOLUTION", "measured", 9216)]


def test_a_reason_does_not_make_up_for_the_share(rtx: Backend, typed: Typed) -> None:
    with pytest.raises(EngineError, match=r"90.0% of its MACs"):
        prove(report(rtx, mixed(typed, {"wide": "measured"}, narrow=9)), "fp16")


def test_macs_are_those_of_the_definitions(rtx: Backend, typed: Typed) -> None:
    """Of grouped, strided, transposed and batched forms: 4 channels of 8 x 8."""
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], name="grouped", pads=[1] * 4, strides=[2, 2], group=2),
        helper.make_node("ConvTranspose", ["p", "b"], ["q"], name="up", strides=[2, 2], group=2),
        helper.make_node("MatMul", ["q", "c"], ["r"], name="product"),
        helper.make_node("Transpose", ["r"], ["rt"], name="turn", perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["rt", "q"], ["s"], name="inner"),
        helper.make_node("Einsum", ["s", "d"], ["y"], name="sum", equation="bcij,cjk->bcik"),
    ]
    weights = {"a": ones(6, 2, 3, 3), "b": ones(6, 2, 2, 2), "c": ones(8, 5), "d": ones(4, 8, 3)}
    found = report(rtx, typed(nodes, weights, out=(4, 5, 3)))
    macs = {layer.name: layer.macs for layer in found.layers if layer.macs}
    assert macs == {
        "grouped": 6 * 4 * 4 * 2 * 9,
        "up": 6 * 4 * 4 * 2 * 4,
        "product": 4 * 8 * 8 * 5,
        "inner": 4 * 5 * 8 * 8,
        "sum": 4 * 5 * 8 * 3,
    }
    grouped = next(layer for layer in found.layers if layer.name == "grouped")
    assert grouped.weight_bytes == 2 * 6 * 2 * 9
    assert grouped.activation_bytes == 2 * (4 * 64 + 6 * 16)
    assert [t.shape for t in (*grouped.inputs[:1], *grouped.outputs)] == [[1, 4, 8, 8], [1, 6, 4, 4]]


def test_what_moves_data_needs_no_reason(rtx: Backend, typed: Typed) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], name="to_single", to=SINGLE),
        helper.make_node("MaxPool", ["a"], ["b"], name="largest", kernel_shape=[1, 1]),
        helper.make_node("AveragePool", ["b"], ["c"], name="mean", kernel_shape=[1, 1]),
        helper.make_node("Transpose", ["c"], ["d"], name="turn", perm=[0, 1, 3, 2]),
        helper.make_node("Cast", ["d"], ["y"], name="to_half", to=HALF),
    ]
    proof = prove(report(rtx, typed(nodes, reasons={"mean": "an average"})), "fp16")
    assert [(w.name, w.reason) for w in proof.wide] == [("mean", "an average")]
    # Without products there is no share to fail.
    assert proof.share == 1.0 and proof.macs == 0


def test_a_quantised_product_counts_as_its_type(rtx: Backend, typed: Typed) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantise"),
        helper.make_node("DequantizeLinear", ["w", "t", "z4"], ["v"], name="weights", axis=0),
        helper.make_node("Conv", ["d", "v"], ["y"], name="product", pads=[1] * 4),
    ]
    weights = {
        "s": np.array(0.1, np.float16),
        "z": np.array(0, np.int8),
        "t": ones(4),
        "z4": np.zeros(4, np.int8),
        "w": ones(4, 4, 3, 3, dtype=np.int8),
    }
    graph = typed(nodes, weights)
    assert prove(report(rtx, graph, "int8"), "int8").share == 1.0
    with pytest.raises(EngineError, match="computes 9,216 MACs in int8"):
        prove(report(rtx, graph, "fp16"), "fp16")


def test_work_that_cannot_be_counted(rtx: Backend) -> None:
    """As many columns as there are values other than 0."""
    none = rtx.api.MatrixOperation.NONE
    network = rtx.api.Builder(rtx.logger).create_network(1)
    x = network.add_input("x", rtx.api.float32, (-1, 8))
    places = network.add_cast(network.add_non_zero(x, rtx.api.int64).get_output(0), rtx.api.float32).get_output(0)
    turned = rtx.api.MatrixOperation.TRANSPOSE
    network.mark_output(network.add_matrix_multiply(places, none, places, turned).get_output(0))
    typed = LayerReport(graph="g", source="graph", precision="fp32", layers=[])
    with pytest.raises(EngineError, match=r"the shape of tensor .* does not follow from the graph's inputs"):
        describe(rtx.api, network, "g", "fp16", typed)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("graph", ["reconstruct", "editor"])
def test_network_and_graph_agree_on_a_shipped_pipeline(
    rtx: Backend, tmp_path: Path, graph: str, precision: str
) -> None:
    """Two counts by different means: ONNX shapes and the parser's own network."""
    made = lower(Bundle.load(RANDOM_BUNDLE, verify=False), graph, precision, tmp_path)
    found = report(rtx, made, precision)
    assert found.macs == made.report.macs > 10**8
    assert found.share("float16") == made.report.share("float16")
    assert not [layer.name for layer in found.layers if layer.reason == "unexplained"]


@pytest.mark.parametrize(("precision", "dtype"), [("int8", "int8"), ("fp8", "float8_e4m3fn")])
@pytest.mark.parametrize("graph", ["reconstruct", "editor"])
def test_network_and_graph_agree_on_a_quantised_pipeline(
    rtx: Backend, tmp_path: Path, graph: str, precision: str, dtype: str
) -> None:
    bundle = Bundle.load(RANDOM_BUNDLE, verify=False)
    peaks = calibrate(bundle, graph, [feeds_of(bundle.graph(graph).inputs, 1)], precision, threads=1)
    made = lower(bundle, graph, precision, tmp_path, peaks=peaks)
    found = report(rtx, made, precision)
    assert found.macs == made.report.macs and found.share(dtype) == made.report.share(dtype) > 0.96
    proof = prove(found, precision)  # type: ignore[arg-type]
    # Whatever has MACs in a wider type is listed; activations between the products are not.
    listed = {wide.name for wide in proof.wide}
    assert all(layer.name in listed for layer in found.layers if layer.macs and layer.precision != dtype)
    assert not {"unexplained", NO_PRODUCT} & {wide.reason for wide in proof.wide}
    # Weights weigh a byte each, and their scales and biases little.
    for layer in found.layers:
        if layer.macs and layer.precision == dtype:
            elements = int(np.prod(layer.inputs[1].shape))
            assert elements < layer.weight_bytes < 1.2 * elements


def test_asked_int8_and_silently_fp16(rtx: Backend, typed: Typed) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="plain", pads=[1] * 4)]
    found = report(rtx, typed(nodes, {"w": ones(4, 4, 3, 3)}), "int8")
    with pytest.raises(EngineError, match=r"asked for in int8, and 0.0% of its MACs are \(90% must be\): layer plain"):
        prove(found, "int8")


def layer(name: str, macs: int, precision: str, reason: str | None = None) -> Layer:
    return Layer(
        name=name,
        operator="CONVOLUTION",
        precision=precision,
        inputs=[],
        outputs=[],
        macs=macs,
        weight_bytes=0,
        activation_bytes=0,
        reason=reason,
    )


def test_fp16_in_an_int8_engine_needs_a_reason() -> None:
    quantised, plain = layer("a", 95, "int8"), layer("c", 0, "float16", NO_PRODUCT)
    for reason in (None, "unexplained"):
        layers = [quantised, layer("b", 5, "float16", reason), plain]
        with pytest.raises(EngineError, match=r"layer b .* computes 5 MACs in float16, and nothing says why"):
            prove(LayerReport(graph="g", source="network", precision="int8", layers=layers), "int8")
    layers = [quantised, layer("b", 5, "float16", "ToRGB"), plain]
    proof = prove(LayerReport(graph="g", source="network", precision="int8", layers=layers), "int8")
    assert proof.share == 0.95 and [(wide.name, wide.reason) for wide in proof.wide] == [("b", "ToRGB")]


def test_architectures_without_fp8() -> None:
    for targets in (["sm86"], ["sm89", "sm80"]):
        with pytest.raises(EngineError, match="has no fp8 arithmetic, which needs sm89 or newer; build int8 or fp16"):
            check_targets("fp8", targets)
    check_targets("fp8", ["sm89", "sm120", "cpu", "current", ""])
    check_targets("int8", ["sm75"])


def test_products_without_8_bit_kernels_do_not_count_against_the_share() -> None:
    """Depthwise convolutions and attention products; whatever else is in FP16 does."""
    found = [layer("a", 80, "int8"), layer("b", 12, "float16", GROUPED), layer("c", 8, "float16", COMPUTED)]
    report = LayerReport(graph="edit", source="network", precision="int8", layers=found)
    proof = prove(report, "int8")
    assert proof.share == 0.8 and [wide.macs for wide in proof.wide] == [12, 8]
    more = report.model_copy(update={"layers": [*found, layer("d", 20, "float16", "ToRGB")]})
    with pytest.raises(EngineError, match=r"80.0% of its MACs that could be are \(90% must be\): layer d .* 20 MACs"):
        prove(more, "int8")
