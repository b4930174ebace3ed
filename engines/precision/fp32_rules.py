"""The rules by which nodes of a graph compute in FP32 although FP16 was requested.

The rules are few and by construction, not by a list of names: what is a vector per image costs nothing and decides
everything (styles, demodulation), what sums or normalises over many values needs the range (norms, softmax), and what
is an image is rounded once, at the end. Whatever else measurement asks for comes in as `keep_fp32`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx_ir as ir

from engines.precision.rewrite import Modulated
from engines.precision.source import Tensor

STYLE = "styles and demodulation: a vector per image, whose sums and reciprocals need the range"
NORM = "normalisation: sums of squares over many values"
SOFTMAX = "softmax: exponentials and their sum"
GATE = "attention gate: a mean and a maximum over softmax weights"
RGB = "image: ToRGB outputs and the RGB skip are summed here and rounded once"
INPUT = "image: pixel levels before the first convolution"
WIDENED = "widened: the accuracy gate asked for it"

NORMS = ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization")
MOVES = frozenset(
    "Cast Concat DepthToSpace DequantizeLinear Expand Flatten Gather Identity MaxPool Pad QuantizeLinear Reshape "
    "Resize Shape Slice SpaceToDepth Split Squeeze Transpose Unsqueeze".split()
)
"""Operators that compute nothing (a maximum picks): they keep the type of what comes in. The two of quantisation belong
to the product beside them."""


def fp32_nodes(
    model: ir.Model, specs: dict[str, Tensor], modulated: Iterable[Modulated], keep_fp32: Collection[str] = ()
) -> dict[str, str]:
    """Names of the FP32 nodes, with the reason.

    Args:
        model: rewritten, see `rewrite`.
        specs: types and shapes of its values.
        modulated: what `rewrite.prenormalise` gave.
        keep_fp32: names of further nodes.
    """
    reasons: dict[str, str] = {}

    def mark(node: ir.Node | None, reason: str) -> None:
        if node is not None:
            reasons.setdefault(str(node.name), reason)

    for convolution in modulated:
        for vector in convolution.vectors:
            for node in _sources(vector, specs):
                mark(node, STYLE)
        if convolution.rgb is not None:
            for node in _descendants(convolution.rgb):
                mark(node, RGB)
    for node in model.graph:
        if node.op_type in NORMS:
            mark(node, NORM)
        elif node.op_type == "Reciprocal" and len(specs[str(node.outputs[0].name)].shape) == 2:
            # Of weights that differ by image there is no modulated convolution; their demodulation is the same.
            for source in _sources(node.outputs[0], specs):
                mark(source, STYLE)
        elif node.op_type == "Unsqueeze" and node.inputs[0] is not None and _scales_maps(node, specs):
            for source in _sources(node.inputs[0], specs):
                mark(source, STYLE)
        elif node.op_type in ("Softmax", "LogSoftmax"):
            mark(node, SOFTMAX)
            for use in node.outputs[0].uses():
                if use.node.op_type.startswith("Reduce"):
                    mark(use.node, GATE)
        elif node.op_type.startswith("Reduce"):
            source = node.inputs[0].producer() if node.inputs[0] is not None else None
            if source is not None and reasons.get(str(source.name)) == GATE:
                mark(node, GATE)
    for value in model.graph.inputs:
        if not specs[str(value.name)].floating:
            for node in _until_convolution(value):
                mark(node, INPUT)
    for node in model.graph:
        if str(node.name) in keep_fp32:
            reasons[str(node.name)] = WIDENED
    return reasons


def _scales_maps(node: ir.Node, specs: dict[str, Tensor]) -> bool:
    """True if what an Unsqueeze gives, B x C x 1 x 1, multiplies maps: not all styles enter a convolution with them."""
    source = node.inputs[0]
    one_per_map = source is not None and len(specs[str(source.name)].shape) == 2
    return one_per_map and any(use.node.op_type == "Mul" for use in node.outputs[0].uses())


def _sources(value: ir.Value, specs: dict[str, Tensor]) -> list[ir.Node]:
    """The nodes behind a vector per image, backwards up to inputs and outputs of the graph and to maps with a place."""
    visited: dict[int, ir.Node] = {}
    waiting = [value]
    while waiting:
        current = waiting.pop()
        node = current.producer()
        # A code that leaves the graph is a result of its own and has its own precision.
        if node is None or id(node) in visited or current.is_graph_output():
            continue
        known = specs.get(str(current.name))
        if known is not None and len(known.shape) > 3:
            continue
        visited[id(node)] = node
        waiting += [v for v in node.inputs if v is not None and not v.is_initializer()]
    return list(visited.values())


def _descendants(node: ir.Node) -> list[ir.Node]:
    """The nodes after a ToRGB's output: the sum, its upsampling, which is by channel, and the rounding. Some
    methods look at the image they have rendered: there another network begins."""
    visited: dict[int, ir.Node] = {}
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if id(current) in visited or _mixes_channels(current):
            continue
        visited[id(current)] = current
        waiting += [use.node for value in current.outputs for use in value.uses()]
    return list(visited.values())


def _mixes_channels(node: ir.Node) -> bool:
    if node.op_type in ("Conv", "ConvTranspose"):
        return node.attributes.get_int("group", 1) == 1
    return node.op_type in ("MatMul", "Gemm")


def _until_convolution(value: ir.Value) -> list[ir.Node]:
    visited: dict[int, ir.Node] = {}
    waiting = [use.node for use in value.uses()]
    while waiting:
        node = waiting.pop()
        if id(node) in visited or node.op_type == "Conv":
            continue
        visited[id(node)] = node
        waiting += [use.node for output in node.outputs for use in output.uses()]
    return list(visited.values())
