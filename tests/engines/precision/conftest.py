"""Hand-made graphs, and the shipped bundle as the real thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.bundle import Bundle
from engines.contracts import TensorSpec
from engines.precision.source import fold_constants
from tests.random_bundle import RANDOM_BUNDLE


@pytest.fixture(scope="session")
def shipped() -> Bundle:
    return Bundle.load(RANDOM_BUNDLE)


def make_model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, list[int | str]],
    outputs: list[str],
    weights: Mapping[str, np.ndarray],
    opset: int = 20,
) -> ir.Model:
    """A folded model of FP32 inputs and outputs."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))
    fold_constants(model)
    return model


def modulated(weight: np.ndarray, *, demodulate: bool = True, up: bool = False) -> ir.Model:
    """`training.networks.stylegan2.ModulatedConv2d` as its export writes it: x B x I x 8 x 8, s B x I, y."""
    two, axes = np.float32(2), np.array([2, 3], np.int64)
    # The energy is summed over everything but input and output channels.
    kernel = weight.transpose(1, 0, 2, 3) if up else weight
    square = np.square(kernel).sum(axis=(2, 3))
    convolution = (
        helper.make_node("ConvTranspose", ["xs", "w"], ["c"], name="conv", strides=[2, 2])
        if up
        else helper.make_node("Conv", ["xs", "w"], ["c"], name="conv", pads=[weight.shape[2] // 2] * 4)
    )
    nodes = [
        helper.make_node("Unsqueeze", ["s", "axes"], ["sb"], name="spread"),
        helper.make_node("Mul", ["x", "sb"], ["xs"], name="modulate"),
        convolution,
    ]
    if demodulate:
        nodes += [
            helper.make_node("Pow", ["s", "two"], ["ss"], name="square"),
            helper.make_node("Gemm", ["ss", "energy"], ["e"], name="sum", transB=1),
            helper.make_node("Add", ["e", "eps"], ["ee"], name="epsilon"),
            helper.make_node("Sqrt", ["ee"], ["r"], name="root"),
            helper.make_node("Reciprocal", ["r"], ["d"], name="inverse"),
            helper.make_node("Unsqueeze", ["d", "axes"], ["db"], name="spread_d"),
            helper.make_node("Mul", ["c", "db"], ["y"], name="demodulate"),
        ]
    else:
        nodes.append(helper.make_node("Add", ["c", "bias"], ["y"], name="add_bias"))
    weights = {"w": weight, "two": two, "axes": axes, "energy": square, "eps": np.float32(1e-8)}
    weights["bias"] = np.full((1, kernel.shape[0], 1, 1), 0.25, np.float32)
    channels = kernel.shape[1]
    return make_model(nodes, {"x": ["batch", channels, 8, 8], "s": ["batch", channels]}, ["y"], weights)


def run(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(feeds)), strict=True))


def feeds_of(specs: list[TensorSpec], batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs of a graph; deltas are small."""
    source = np.random.default_rng(seed)
    made = {}
    for spec in specs:
        shape = (batch, *(int(size) for size in spec.shape[1:]))
        if spec.dtype == "uint8":
            made[spec.name] = source.integers(0, 256, shape, dtype=np.uint8)
        else:
            scale = 0.1 if "delta" in spec.name else 1.0
            made[spec.name] = (scale * source.normal(size=shape)).astype(np.float32)
    return made


Writer = Callable[[ir.Model, Path], Path]
