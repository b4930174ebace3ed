"""The proof of a network's precision: the types of its own tensors, as they were built.

A network of TensorRT since 10.12 is strongly typed: the type of a tensor is the type it is computed in, and the builder
has no leave to choose another. So the network definition is proof without a GPU. The inspector of a loaded engine is
proof with one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from engines.bundle.engine_manifest import Precision, PrecisionProof, WideLayer
from engines.bundle.layers import NO_GAIN, NO_PRODUCT, Layer, LayerReport, LayerTensor
from engines.errors import EngineError

LEAST_SHARE: Mapping[str, float] = {"fp32": 1.0, "fp16": 0.98, "int8": 0.9, "fp8": 0.9}
"""Share of the MACs that must be in the precision asked for. FP32 asked is FP32 throughout. With 8 bits products that
have no such kernel (`layers.NO_GAIN`) do not count; of the others the rules of `precision.quantise` reach 91 to 99 % in
the pipelines of the tests' random bundle, and the rest is room for what a gate asks back."""
OLDEST: Mapping[str, int] = {"fp8": 89}
"""The first architecture whose tensor cores multiply a type, where that is not every one that is built for."""
UNEXPLAINED = "unexplained"

DTYPES: Mapping[str, str] = {"fp32": "float32", "fp16": "float16", "int8": "int8", "fp8": "float8_e4m3fn"}
"""The type that a precision computes in."""

_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "FP4": "float4_e2m1fn",
    "E8M0": "float8_e8m0fnu",
    "INT4": "int4",
}
_BYTES = {"bool": 1, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e8m0fnu": 1, "float4_e2m1fn": 0.5, "int4": 0.5}

_MOVES = frozenset(
    "ASSERTION CAST CONCATENATION CONDITION CONDITIONAL_INPUT CONDITIONAL_OUTPUT CONSTANT DEQUANTIZE GATHER IDENTITY "
    "NON_ZERO ONE_HOT PADDING QUANTIZE RESIZE SCATTER SELECT SHAPE SHUFFLE SLICE SQUEEZE UNSQUEEZE".split()
)
"""Layers that compute nothing with their data."""

_OPAQUE = frozenset(
    "ATTENTION_INPUT ATTENTION_OUTPUT DIST_COLLECTIVE KV_CACHE_UPDATE MOE PLUGIN PLUGIN_V2 PLUGIN_V3 RECURRENCE".split()
)
"""Layers whose work cannot be counted from their attributes."""

_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")


def describe(api: Any, network: Any, graph: str, precision: str, typed: LayerReport) -> LayerReport:
    """The layers of a network that work on data: constants and what computes shapes are left out.

    Args:
        network: a strongly typed INetworkDefinition; as it was again when this returns.
        typed: the report of the typed graph that the network was parsed from, which knows why a node is wider.

    Raises:
        EngineError: if a layer's work cannot be counted.
    """
    reasons = {layer.name: layer.reason for layer in typed.layers if layer.reason}
    requested = DTYPES[precision]
    eight = requested not in ("float32", "float16")
    with _at_batch_one(network):
        constants: dict[str, int] = {}
        quantised: dict[str, str] = {}
        layers = []
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            kind = layer.type.name
            inputs = [t for t in (layer.get_input(i) for i in range(layer.num_inputs)) if t is not None]
            outputs = [t for t in (layer.get_output(i) for i in range(layer.num_outputs)) if t is not None]
            if all(tensor.name in constants for tensor in inputs):
                constants.update((tensor.name, _size(tensor)) for tensor in outputs)
                if kind == "DEQUANTIZE":
                    quantised[outputs[0].name] = _dtype(inputs[0])
                    # Weights weigh what is stored of them.
                    constants[outputs[0].name] = sum(constants[tensor.name] for tensor in inputs)
                elif kind == "SHUFFLE" and inputs[0].name in quantised:
                    # The parser gives a product's weights the rank of its data.
                    quantised[outputs[0].name] = quantised[inputs[0].name]
                    constants[outputs[0].name] = constants[inputs[0].name]
                continue
            if all(tensor.is_shape_tensor for tensor in outputs):
                continue
            if kind in _OPAQUE:
                raise EngineError(f"graph {graph}: the work of layer {layer.name} ({kind}) cannot be counted")
            data = [tensor for tensor in inputs if tensor.name not in constants]
            if kind == "DEQUANTIZE":
                quantised[outputs[0].name] = _dtype(data[0])
            computes = _computes(inputs, data, quantised)
            macs = _macs(api, layer, kind, inputs, outputs)
            node = _NODE.search(getattr(layer, "metadata", ""))
            reason = None
            wider = computes != requested and (computes == "float32" or (eight and computes == "float16"))
            if wider and not _moves(api, layer, kind):
                # Without products FP16 is what a graph of 8 bits is made of.
                plain = NO_PRODUCT if computes == "float16" and not macs else UNEXPLAINED
                reason = reasons.get(node[1] if node else layer.name, plain)
            weights = [tensor for tensor in inputs if tensor.name in constants and not tensor.is_shape_tensor]
            layers.append(
                Layer(
                    name=layer.name,
                    operator=kind,
                    precision=computes,
                    inputs=[_tensor(tensor) for tensor in inputs],
                    outputs=[_tensor(tensor) for tensor in outputs],
                    macs=macs,
                    weight_bytes=sum(constants[tensor.name] for tensor in weights) + _kernel_bytes(api, layer, kind),
                    activation_bytes=sum(_size(tensor) for tensor in (*data, *outputs)),
                    reason=reason,
                    fused=[node[1]] if node and node[1] != layer.name else [],
                )
            )
    return LayerReport(graph=graph, source="network", precision=precision, layers=layers)


def prove(report: LayerReport, precision: Precision) -> PrecisionProof:
    """Holds a report against the precision that was asked for.

    Raises:
        EngineError: if less than `LEAST_SHARE` of the MACs are in it, or a layer with MACs is in a wider type and
            nothing says why.
    """
    dtype = DTYPES[precision]
    share = report.share(dtype)
    least = LEAST_SHARE[precision]
    other = sorted((layer for layer in report.layers if layer.precision != dtype), key=lambda layer: -layer.macs)
    counted = LayerReport(
        graph=report.graph,
        source=report.source,
        precision=precision,
        layers=[layer for layer in report.layers if layer.reason not in NO_GAIN],
    )
    if counted.share(dtype) < least:
        first = next(layer for layer in other if layer.reason not in NO_GAIN)
        which = "its MACs are" if counted.macs == report.macs else "its MACs that could be are"
        raise EngineError(
            f"graph {report.graph} was asked for in {precision}, and {counted.share(dtype):.1%} of {which} "
            f"({least:.0%} must be): layer {first.name} ({first.operator}) computes {first.macs:,} MACs in "
            f"{first.precision}"
        )
    for layer in other:
        if layer.macs and precision != "fp32" and layer.reason in (None, UNEXPLAINED):
            raise EngineError(
                f"graph {report.graph} was asked for in {precision}: layer {layer.name} ({layer.operator}) computes "
                f"{layer.macs:,} MACs in {layer.precision}, and nothing says why"
            )
    wide = [
        WideLayer(name=layer.name, operator=layer.operator, reason=layer.reason or UNEXPLAINED, macs=layer.macs)
        for layer in report.layers
        if layer.reason not in (None, NO_PRODUCT)
    ]
    return PrecisionProof(asked=precision, share=share, macs=report.macs, source=report.source, wide=wide)


def check_targets(precision: Precision, targets: Sequence[str]) -> None:
    """Raises an EngineError if an architecture ("sm86") has no tensor cores for a precision."""
    oldest = OLDEST.get(precision, 0)
    for target in targets:
        match = re.fullmatch(r"sm(\d{2,3})", target.strip().lower())
        if match and int(match[1]) < oldest:
            raise EngineError(
                f"{target} has no {precision} arithmetic, which needs sm{oldest} or newer; build int8 or fp16 for it"
            )


@contextmanager
def _at_batch_one(network: Any) -> Iterator[None]:
    """Sets dynamic extents of the inputs to 1 for the block; the network infers every other shape from them."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    before = [tuple(tensor.shape) for tensor in inputs]
    for tensor, shape in zip(inputs, before, strict=True):
        tensor.shape = tuple(1 if extent < 0 else extent for extent in shape)
    try:
        yield
    finally:
        for tensor, shape in zip(inputs, before, strict=True):
            tensor.shape = shape


def _dtype(tensor: Any) -> str:
    name: str = tensor.dtype.name
    return _TYPES.get(name, name.lower())


def _shape(tensor: Any) -> tuple[int, ...]:
    try:
        shape = tuple(int(extent) for extent in tensor.shape)
    except ValueError:  # an unknown rank
        shape = (-1,)
    if min(shape, default=0) < 0:
        # Otherwise its work would count as nothing.
        raise EngineError(f"the shape of tensor {tensor.name} does not follow from the graph's inputs")
    return shape


def _size(tensor: Any) -> int:
    dtype = _dtype(tensor)
    return math.ceil(math.prod(_shape(tensor)) * (_BYTES[dtype] if dtype in _BYTES else np.dtype(dtype).itemsize))


def _tensor(tensor: Any) -> LayerTensor:
    return LayerTensor(name=tensor.name, dtype=_dtype(tensor), shape=list(_shape(tensor)))


def _computes(inputs: list[Any], data: list[Any], quantised: Mapping[str, str]) -> str:
    """The type of what a layer computes with. Between two dequantised inputs that is the quantised type: the builder
    fuses the pattern into one kernel of it."""
    dtypes = {quantised.get(tensor.name, "") for tensor in inputs[:2]}
    if len(inputs) > 1 and len(dtypes) == 1 and (only := dtypes.pop()):
        return only
    floating = (tensor for tensor in data if tensor.dtype.name not in ("BOOL", "INT32", "INT64"))
    return _dtype(next(floating, data[0]))


_CLASSES = {
    "CONVOLUTION": "IConvolutionLayer",
    "DECONVOLUTION": "IDeconvolutionLayer",
    "EINSUM": "IEinsumLayer",
    "MATRIX_MULTIPLY": "IMatrixMultiplyLayer",
    "POOLING": "IPoolingLayer",
}


def _cast(api: Any, layer: Any, kind: str) -> Any:
    """get_layer gives every layer as the base class: its attributes show once it is told which one it is."""
    layer.__class__ = getattr(api, _CLASSES[kind])
    return layer


def _moves(api: Any, layer: Any, kind: str) -> bool:
    return kind in _MOVES or (kind == "POOLING" and _cast(api, layer, kind).type == api.PoolingType.MAX)


def _kernel_bytes(api: Any, layer: Any, kind: str) -> int:
    if kind not in ("CONVOLUTION", "DECONVOLUTION"):
        return 0
    own = _cast(api, layer, kind)
    return int(own.kernel.nbytes) + int(own.bias.nbytes)


def _macs(api: Any, layer: Any, kind: str, inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-accumulates at batch 1."""
    if kind in ("CONVOLUTION", "DECONVOLUTION"):
        own = _cast(api, layer, kind)
        source, result = _shape(inputs[0]), _shape(outputs[0])
        kernel = math.prod(own.kernel_size_nd)
        if kind == "CONVOLUTION":
            return math.prod(result) * source[1] // own.num_groups * kernel
        return math.prod(source) * result[1] // own.num_groups * kernel
    if kind == "MATRIX_MULTIPLY":
        own = _cast(api, layer, kind)
        first = _shape(inputs[0])
        return math.prod(_shape(outputs[0])) * first[-2 if own.op0 == api.MatrixOperation.TRANSPOSE else -1]
    if kind == "EINSUM" and len(inputs) > 1:
        terms = _cast(api, layer, kind).equation.replace(" ", "").partition("->")[0].split(",")
        extents: dict[str, int] = {}
        for term, tensor in zip(terms, inputs, strict=True):
            extents.update(zip(term, _shape(tensor), strict=True))
        return math.prod(extents.values())
    return 0
