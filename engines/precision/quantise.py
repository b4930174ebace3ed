"""Explicit quantisation: QuantizeLinear and DequantizeLinear around the products of an FP16 graph that gain by it.

TensorRT since 11 and TensorRT-RTX quantise nothing by themselves: a kernel of 8 bits is where a product stands between
two DequantizeLinear, with a zero point of 0, one scale per tensor for the data and one per output channel for the
weights (TensorRT documentation, "Working with Quantized Types"). Biases and everything else stay as they are in FP16,
and so does a product whose data or place make it a bad one for 8 bits; each has its reason.

onnxruntime.quantization was tried on the same graphs. Its QDQ form is this one, and external data and FP16 survive it;
but it keeps the calibration's activations in memory, offers the plain maximum as the only range for INT8 that is quick,
refuses FP8 on FP16 graphs, and knows nothing of reasons.

What a depthwise convolution gives a 1x1 is balanced before it is rounded to INT8's even steps: a filter may hand its
channel any power of two, which the weights behind it take back exactly, so that all channels use the whole range
(cross-layer equalisation, Nagel et al. 2019, with measured ranges). MobileStyleGAN's picture gains 2 to 4 dB by it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from engines.bundle.layers import COMPUTED, GROUPED, LITTLE, THIN
from engines.errors import EngineError
from engines.precision.macs import macs
from engines.precision.rewrite import Modulated
from engines.precision.source import Tensor, constant, initializer

QUANTISED: Mapping[str, tuple[Any, ir.DataType, float]] = {
    "int8": (np.int8, ir.DataType.INT8, 127.0),
    "fp8": (ml_dtypes.float8_e4m3fn, ir.DataType.FLOAT8E4M3FN, 448.0),
}
"""NumPy's type, ONNX's, and the largest value that is used, by precision. INT8's range is symmetric: -128 is left out.
"""
CHANNELS = 16
"""8-bit kernels take channels in sixteens."""
Peak = float | Sequence[float]
"""The magnitude that the largest 8-bit value of a product's data stands for; one for each channel where these can be
balanced."""
_LEAST_SHARE = 2.0**-8
"""A channel is enlarged so often at most: FP16 filters of up to 255 stay in range."""
_LEAST_SCALE = 2.0**-14
"""The least normal FP16 value: a scale below it would lose bits of its own."""

LEAST_WORK = 0.005
"""The share of a graph's multiplications that a product must have to be worth 8 bits on a CPU: codes and the smallest
maps of a generator have less, and cost most of the accuracy."""
LEAST_INTENSITY = 48
"""Multiplications for each value that is read or written, likewise: with fewer a CPU waits for its memory."""

TO_RGB = "ToRGB: its three channels are the picture"
NARROW = f"its channels are no multiple of {CHANNELS}: pixels, single maps and poolings"
VECTOR = "a vector per image: little work, and every pixel depends on it"
HALF = "kept as wide as the graph: the accuracy gate asked for it"

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def chosen(
    model: ir.Model, specs: Mapping[str, Tensor], modulated: Collection[Modulated], wide: Mapping[str, str]
) -> tuple[list[ir.Node], dict[str, str]]:
    """The products that gain by 8 bits, and by name of every other one why it does not.

    Args:
        model: rewritten, see `rewrite`, before or after its types were chosen.
        modulated: what `rewrite.prenormalise` gave.
        wide: the FP32 nodes, which are neither.
    """
    rgb = {str(one.convolution.name) for one in modulated if one.rgb is not None}
    gain, reasons = [], {}
    for node in model.graph:
        if node.op_type not in PRODUCTS or str(node.name) in wide:
            continue
        reason = TO_RGB if str(node.name) in rgb else _obstacle(node, specs)
        if reason is None:
            gain.append(node)
        else:
            reasons[str(node.name)] = reason
    return gain, reasons


def _obstacle(node: ir.Node, specs: Mapping[str, Tensor]) -> str | None:
    weight, data = constant(node.inputs[1]), node.inputs[0]
    if weight is None or data is None or data.is_initializer():
        return COMPUTED
    if node.attributes.get_int("group", 1) > 1:
        return GROUPED
    if any(extent % CHANNELS for extent in (weight.shape[:2] if "Conv" in node.op_type else weight.shape[-2:])):
        return NARROW
    shape = specs[str(data.name)].shape
    places = shape[2:] if "Conv" in node.op_type else shape[1:-1]
    return VECTOR if int(np.prod(places)) == 1 or node.op_type == "Gemm" or weight.ndim not in (2, 4) else None


def worth_it(products: Collection[ir.Node], specs: Mapping[str, Tensor]) -> tuple[list[ir.Node], dict[str, str]]:
    """The products that gain by 8 bits on a CPU too, and by name of every other one why it does not."""
    work = {str(node.name): macs(node, specs) for node in products}
    least = LEAST_WORK * sum(work.values())
    reasons = {}
    for node in products:
        name = str(node.name)
        moved = sum(specs[str(value.name)].elements for value in (node.inputs[0], node.outputs[0]) if value is not None)
        if work[name] < least:
            reasons[name] = LITTLE
        elif work[name] < LEAST_INTENSITY * moved:
            reasons[name] = THIN
    return [node for node in products if str(node.name) not in reasons], reasons


def quantise(
    model: ir.Model, products: Collection[ir.Node], precision: str, peaks: Mapping[str, Peak], *, single: bool = False
) -> None:
    """Puts products between 8-bit data and 8-bit weights, in place. The weights then stand in the graph once, as
    8-bit values.

    Args:
        model: typed, see `typed.retype`; its products in FP16 or, for a CPU, FP32.
        products: of `chosen`.
        precision: one of `QUANTISED`.
        peaks: by product's name, the magnitude that the largest 8-bit value stands for, see `calibrate.calibrate`.
        single: the graph's floating-point type is FP32.

    Raises:
        EngineError: if a product's range was not measured.
    """
    graph = model.graph
    _, _, top = QUANTISED[precision]
    made: dict[int, ir.Value] = {}
    kind = ir.DataType.FLOAT if single else ir.DataType.FLOAT16
    for node in products:
        name, data = str(node.name), node.inputs[0]
        assert data is not None
        if name not in peaks:
            raise EngineError(f"{precision} needs the range of what enters {name}, and it was not measured")
        magnitudes, shares = np.asarray(peaks[name], np.float64), None
        if magnitudes.ndim and (filters := balanced(node)) is not None:
            shares = _shares(magnitudes)
            _enlarge(graph, filters, shares)
            magnitudes = magnitudes / shares
        if id(data) not in made:
            # Products of the same data share the first one's 8-bit values.
            scale = max(float(magnitudes.max()) / top, _LEAST_SCALE)
            made[id(data)] = _round(graph, node, data, scale, precision, kind)
        node.replace_input_with(0, made[id(data)])
        node.replace_input_with(1, _weights(graph, node, precision, shares, kind))


def balanced(node: ir.Node) -> ir.Node | None:
    """The depthwise convolution, without bias, whose channels go into this product alone; None if there is none."""
    source = node.inputs[0].producer() if node.op_type == "Conv" and node.inputs[0] is not None else None
    weight = constant(source.inputs[1]) if source is not None and source.op_type == "Conv" else None
    if source is None or weight is None or len(source.inputs) > 2 or node.attributes.get_int("group", 1) > 1:
        return None
    depthwise = weight.shape[1] == 1 and weight.shape[0] == source.attributes.get_int("group", 1)
    return source if depthwise and len(source.outputs[0].uses()) == 1 else None


def _shares(magnitudes: np.ndarray) -> np.ndarray:
    """The channels' shares of the largest one, as powers of two."""
    largest = max(float(magnitudes.max()), float(np.finfo(np.float32).tiny))
    return np.exp2(np.ceil(np.log2(np.maximum(magnitudes / largest, _LEAST_SHARE)))).astype(np.float32)


def _enlarge(graph: ir.Graph, filters: ir.Node, shares: np.ndarray) -> None:
    weight = constant(filters.inputs[1])
    assert weight is not None
    larger = (weight.astype(np.float32) / shares[:, None, None, None]).astype(weight.dtype)
    filters.replace_input_with(1, initializer(graph, f"{filters.name}/balanced", larger))


def _round(
    graph: ir.Graph, before: ir.Node, data: ir.Value, scale: float, precision: str, kind: ir.DataType
) -> ir.Value:
    numpy_type, onnx_type, _ = QUANTISED[precision]
    name = str(data.name)
    parameters = [
        initializer(graph, f"{name}/{what}", np.array(array))
        for what, array in (("step", np.array(scale, kind.numpy())), ("zero", np.zeros((), numpy_type)))
    ]
    down = ir.node("QuantizeLinear", [data, *parameters], name=f"{name}/quantise")
    up = ir.node("DequantizeLinear", [down.outputs[0], *parameters], name=f"{name}/dequantise")
    for node, dtype in ((down, onnx_type), (up, kind)):
        node.outputs[0].name, node.outputs[0].dtype = f"{node.name}.out", dtype
    graph.insert_before(before, [down, up])
    return up.outputs[0]


def _weights(graph: ir.Graph, node: ir.Node, precision: str, shares: np.ndarray | None, kind: ir.DataType) -> ir.Value:
    numpy_type, _, top = QUANTISED[precision]
    weight = constant(node.inputs[1])
    assert weight is not None
    weight = weight.astype(np.float32)
    if shares is not None:
        weight = weight * shares[None, :, None, None]
    axis = 0 if node.op_type == "Conv" else 1
    rest = tuple(other for other in range(weight.ndim) if other != axis)
    scale = np.maximum(np.abs(weight).max(axis=rest) / top, _LEAST_SCALE).astype(kind.numpy())
    scaled = weight / np.expand_dims(scale.astype(np.float32), rest)
    small = np.clip(np.round(scaled) if precision == "int8" else scaled, -top, top).astype(numpy_type)
    arrays = {"values": small, "scales": scale, "zeros": np.zeros(scale.shape, numpy_type)}
    inputs = [initializer(graph, f"{node.name}/{what}", array) for what, array in arrays.items()]
    up = ir.node("DequantizeLinear", inputs, {"axis": axis}, name=f"{node.name}/dequantise_weights")
    up.outputs[0].name, up.outputs[0].dtype = f"{up.name}.out", kind
    graph.insert_before(node, up)
    return up.outputs[0]


def computes_in(node: ir.Node) -> str | None:
    """NumPy's name of the 8-bit type that a product computes in; None for one that stands between no two of it."""
    if node.op_type not in PRODUCTS:
        return None
    sources = [value.producer() if value is not None else None for value in node.inputs[:2]]
    types = {
        source.inputs[0].dtype if source is not None and source.op_type == "DequantizeLinear" else None  # type: ignore[union-attr]
        for source in sources
    }
    only = types.pop()
    return str(only.numpy()) if not types and only is not None else None


def split_exempt(products: Collection[ir.Node], keep_fp32: Collection[str]) -> tuple[list[ir.Node], dict[str, str]]:
    """Splits the products into those to quantise and, with the reason, those that a gate asked to have back in FP16."""
    reasons = {str(node.name): HALF for node in products if str(node.name) in keep_fp32}
    return [node for node in products if str(node.name) not in reasons], reasons
