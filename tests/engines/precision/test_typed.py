from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest

from engines.bundle import Bundle
from engines.contracts import PARTS, PIPELINES, graph_contract
from engines.errors import EngineError
from engines.precision import lower
from engines.precision.fp32_rules import MOVES, WIDENED
from engines.precision.source import load_source
from engines.precision.typed import report, retype
from tests.engines.precision.conftest import feeds_of

FLOATS = ("float16", "float32")


def _session(file) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(file, options)


@pytest.fixture(scope="module")
def typed(shipped: Bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("typed")
    return {graph: lower(shipped, graph, "fp16", folder) for graph in (*PARTS, *PIPELINES)}


@pytest.mark.parametrize("graph", [*PARTS, *PIPELINES])
def test_a_typed_graph_is_valid_and_keeps_its_contract(typed, shipped, graph):
    onnx.checker.check_model(str(typed[graph].file), full_check=True)
    session = _session(typed[graph].file)
    kinds = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
    inputs, outputs = graph_contract(shipped.family, graph)
    assert [(i.name, kinds[i.type]) for i in session.get_inputs()] == [(s.name, s.dtype) for s in inputs]
    assert [(o.name, kinds[o.type]) for o in session.get_outputs()] == [(s.name, s.dtype) for s in outputs]
    assert session.get_inputs()[0].shape[0] == "batch"


@pytest.mark.parametrize("graph", [*PARTS, *PIPELINES])
def test_types_are_strong_and_every_wide_product_has_a_reason(typed, graph):
    """No node mixes FP16 and FP32, which a strongly typed network refuses; and little stays in FP32."""
    layers = typed[graph].report.layers
    for layer in layers:
        kinds = {t.dtype for t in layer.inputs if t.dtype in FLOATS}
        if layer.operator not in ("Cast", "Resize"):
            assert len(kinds) <= 1, (layer.name, kinds)
        if layer.precision == "float32" and layer.operator not in MOVES:
            assert layer.reason, layer.name
    assert typed[graph].report.share("float16") >= 0.98


@pytest.mark.parametrize("graph", ["edit", "invert"])
def test_what_must_stay_in_fp32_does(typed, graph):
    by_operator: dict[str, set[str]] = {}
    for layer in typed[graph].report.layers:
        by_operator.setdefault(layer.operator, set()).add(layer.precision)
    for operator in ("Softmax", "Reciprocal", "Sqrt"):
        assert by_operator[operator] == {"float32"}, operator
    assert "float16" in by_operator["Conv"]
    if graph == "edit":
        assert by_operator["LayerNormalization"] == by_operator["InstanceNormalization"] == {"float32"}
        assert by_operator["Round"] == by_operator["Clip"] == {"float32"}
        assert by_operator["Gelu"] == {"float16"}


@pytest.mark.parametrize("graph", [*PARTS, *PIPELINES])
def test_fp32_is_the_bundles_graph(shipped, graph, tmp_path):
    """Folding constants and batch norms changes nothing but rounding."""
    lowered = lower(shipped, graph, "fp32", tmp_path)
    entry = shipped.graph(graph)
    feeds = feeds_of(entry.inputs, batch=2)
    original = _session(shipped.path / entry.file).run(None, feeds)
    for have, want in zip(_session(lowered.file).run(None, feeds), original, strict=True):
        limit = 1 if want.dtype == np.uint8 else 1e-3 * max(1.0, float(np.abs(want).max()))
        assert np.abs(have.astype(np.float64) - want).max() <= limit
    assert {layer.precision for layer in lowered.report.layers if layer.macs} == {"float32"}


def test_macs_are_those_of_the_plain_graph(shipped, typed):
    assert typed["reconstruct"].report.macs == report(shipped, "reconstruct").macs


def test_widening(shipped, tmp_path):
    base = lower(shipped, "reconstruct", "fp16", tmp_path)
    chosen = next(layer.name for layer in base.report.layers if layer.operator == "ConvTranspose" and layer.macs > 1e6)
    wide = lower(shipped, "reconstruct", "fp16", tmp_path, keep_fp32={chosen})
    layer = next(layer for layer in wide.report.layers if layer.name == chosen)
    assert (layer.precision, layer.reason) == ("float32", WIDENED)
    assert wide.report.share("float16") < base.report.share("float16")
    onnx.checker.check_model(str(wide.file), full_check=True)


@pytest.mark.parametrize(
    ("precision", "keep_fp32", "message"),
    [
        ("fp4", set(), "precision 'fp4' is not offered; there are fp32, fp16, int8, fp8"),
        ("fp16", {"no_such_node"}, "there is no node no_such_node to widen"),
    ],
)
def test_what_cannot_be_lowered(shipped, tmp_path, precision, keep_fp32, message):
    with pytest.raises(EngineError, match=message):
        lower(shipped, "reconstruct", precision, tmp_path, keep_fp32=keep_fp32)


def test_a_newer_opset_is_refused(shipped, monkeypatch):
    model = onnx.load_from_string(shipped.read(shipped.graph("reconstruct").file))
    model.opset_import[0].version = 23
    read = shipped.read
    monkeypatch.setattr(
        shipped, "read", lambda file: model.SerializeToString() if file.endswith(".onnx") else read(file)
    )
    with pytest.raises(
        EngineError, match="graph reconstruct uses ONNX opset 23, and engines are built from at most 20"
    ):
        load_source(shipped, "reconstruct")


def test_layers_know_their_bytes(typed):
    """A convolution's weights in FP16 are two bytes a value."""
    layer = next(layer for layer in typed["reconstruct"].report.layers if layer.operator == "Conv" and layer.macs)
    data, weight = layer.inputs[0], layer.inputs[1]
    assert layer.weight_bytes == 2 * int(np.prod(weight.shape)) + sum(
        2 * int(np.prod(t.shape)) for t in layer.inputs[2:]
    )
    assert layer.activation_bytes == 2 * int(np.prod(data.shape)) + 2 * int(np.prod(layer.outputs[0].shape))
    assert dataclasses.is_dataclass(typed["reconstruct"])


def test_nodes_without_names_get_one(tiny_bundle):
    """FP32 nodes are named to the builder: with none, one would take all others with it."""
    model = load_source(tiny_bundle, "generator")
    names = [node.name for node in model.graph]
    assert all(names) and len(set(names)) == len(names)
    retype(model, "fp16")
    assert {value.dtype.name for node in model.graph for value in node.outputs if node.op_type == "ConvTranspose"} == {
        "FLOAT16"
    }
