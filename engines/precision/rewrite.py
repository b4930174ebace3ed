"""Exact rewritings that make a graph fit for FP16 before any type changes.

Batch norm at inference is one multiplication and one addition per channel: it goes into the convolution before it, or
stands as those two.

A StyleGAN2 convolution is conv(x s, W) d with d = rsqrt(sum W^2 s^2) (Karras et al. 2020, eq. 3). Styles and weights
may be large, and what their product overflows in FP16 the demodulation would have taken back. NVIDIA's stylegan2-ada
divides both by their largest magnitude beforehand, per image and per output channel. Here the same factors, m and
2^k, also multiply d, which is computed in FP32 from the styles and weights as they were: nothing changes but the place
of a scale. 2^k being a power of two, the weights keep every bit. ToRGB has no demodulation; m 2^k multiplies its
output, in FP32.

MobileStyleGAN's 3x3 convolutions, depthwise ones mostly, have their demodulation folded into their weights: there is
nothing that would take a product back, and they stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from engines.precision.source import Tensor, constant, initializer, shapes

TINY = np.float32(1e-12)
"""Stands in for the largest style of an image whose styles are all zero."""


@dataclass(frozen=True)
class Modulated:
    """One modulated convolution after pre-normalisation, or one that needs none."""

    convolution: ir.Node
    vectors: tuple[ir.Value, ...]
    """The values B x C at its border, styles and output factors: what comes before them stays in FP32."""
    rgb: ir.Node | None
    """The multiplication that gives a ToRGB's output its scale back; None for others."""


def fold_batch_norms(model: ir.Model) -> None:
    """Removes every BatchNormalization, of maps with any number of dimensions."""
    graph = model.graph
    specs: dict[str, Tensor] = {}
    for node in [n for n in graph if n.op_type == "BatchNormalization"]:
        x, *parameters = node.inputs
        arrays = [constant(value) for value in parameters]
        assert x is not None and all(array is not None for array in arrays), f"{node.name} has computed statistics"
        gain, bias, mean, variance = (array.astype(np.float64) for array in arrays if array is not None)
        scale = gain / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        shift = bias - mean * scale
        source = x.producer()
        axis = _output_axis(source) if len(x.uses()) == 1 and not x.is_graph_output() else None
        weight = constant(source.inputs[1]) if source is not None and axis is not None else None
        if source is None or weight is None:
            specs = specs or shapes(model)
            _affine(graph, node, scale, shift, len(specs[str(x.name)].shape))
            continue
        old = constant(source.inputs[2]) if len(source.inputs) > 2 else None
        shift = shift + (0 if old is None else old * scale)
        weight = weight * scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
        values = [
            initializer(graph, f"{node.name}/{what}", array.astype(np.float32))
            for what, array in (("weight", weight), ("bias", shift))
        ]
        source.resize_inputs(3)
        for index, value in enumerate(values, 1):
            source.replace_input_with(index, value)
        _replace(node.outputs[0], x)
        graph.remove(node, safe=True)


def _output_axis(node: ir.Node | None) -> int | None:
    """The axis of a convolution's weight that counts its outputs; None if there is no such one."""
    if node is None or node.op_type not in ("Conv", "ConvTranspose"):
        return None
    if node.op_type == "Conv":
        return 0
    # I x O/groups x kernel: of several groups one axis does not tell all outputs apart.
    return 1 if node.attributes.get_int("group", 1) == 1 else None


def _affine(graph: ir.Graph, node: ir.Node, scale: np.ndarray, shift: np.ndarray, rank: int) -> None:
    shape = (1, -1, *[1] * (rank - 2))
    arrays = (scale.reshape(shape).astype(np.float32), shift.reshape(shape).astype(np.float32))
    gain, bias = (initializer(graph, f"{node.name}/{w}", a) for w, a in zip(("scale", "shift"), arrays, strict=True))
    multiply = ir.node("Mul", [node.inputs[0], gain], name=f"{node.name}/scale")
    add = ir.node("Add", [multiply.outputs[0], bias], name=f"{node.name}/shift")
    _insert(graph, node, [multiply, add], node.outputs[0])
    graph.remove(node, safe=True)


def _insert(graph: ir.Graph, before: ir.Node, nodes: list[ir.Node], replaced: ir.Value | None = None) -> None:
    """Inserts named nodes; the last one's output takes the place of `replaced`."""
    for node in nodes:
        node.outputs[0].name = f"{node.name}.out"
    graph.insert_before(before, nodes)
    if replaced is not None:
        _replace(replaced, nodes[-1].outputs[0])


def _replace(old: ir.Value, new: ir.Value) -> None:
    """A graph output keeps its name, which is part of the contract."""
    if old.is_graph_output():
        old.name, new.name = f"{old.name}.before", old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def prenormalise(model: ir.Model, specs: dict[str, Tensor]) -> list[Modulated]:
    """Pre-normalises every modulated convolution but those whose demodulation is in their weights.

    Args:
        model: changed in place.
        specs: shapes of its values, see `source.shapes`; need not hold what this adds.

    Returns:
        The convolutions, in order.
    """
    return [
        _normalise(model.graph, node, *pattern)
        for node in list(model.graph)
        if (pattern := _modulation(node, specs)) is not None
    ]


def _vector(value: ir.Value | None, specs: dict[str, Tensor]) -> ir.Node | None:
    """The Unsqueeze that turns B x C into B x C x 1 x 1, if the value comes from one."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Unsqueeze" or node.inputs[0] is None:
        return None
    return node if len(specs[str(node.inputs[0].name)].shape) == 2 else None


def _modulation(node: ir.Node, specs: dict[str, Tensor]) -> tuple[ir.Node, ir.Node] | None:
    """(multiplication by the style, its Unsqueeze) of a modulated convolution."""
    if node.op_type not in ("Conv", "ConvTranspose") or constant(node.inputs[1]) is None:
        return None
    multiply = node.inputs[0].producer() if node.inputs[0] is not None else None
    if multiply is None or multiply.op_type != "Mul":
        return None
    for value in multiply.inputs:
        if (unsqueeze := _vector(value, specs)) is not None:
            return multiply, unsqueeze
    return None


def _normalise(graph: ir.Graph, node: ir.Node, multiply: ir.Node, unsqueeze: ir.Node) -> Modulated:
    style, name = unsqueeze.inputs[0], node.name
    weight = constant(node.inputs[1])
    assert style is not None and weight is not None
    after = _after_blur(node)
    demodulation = _demodulation(after)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if (demodulation is None and max(weight.shape[2:]) > 1) or (demodulation is not None and bias is not None):
        return Modulated(node, (style,), None)
    one = initializer(graph, f"{name}/axis", np.array([1], np.int64))
    tiny = initializer(graph, f"{name}/tiny", np.array(TINY))
    magnitude = ir.node("Abs", [style], name=f"{name}/style_magnitude")
    largest = ir.node("ReduceMax", [magnitude.outputs[0], one], {"keepdims": 1}, name=f"{name}/style_largest")
    bounded = ir.node("Max", [largest.outputs[0], tiny], name=f"{name}/style_scale")
    scaled = ir.node("Div", [style, bounded.outputs[0]], name=f"{name}/style_scaled")
    spread = ir.node("Unsqueeze", [scaled.outputs[0], unsqueeze.inputs[1]], name=f"{name}/style_spread")
    _insert(graph, multiply, [magnitude, largest, bounded, scaled, spread])
    multiply.replace_input_with(list(multiply.inputs).index(unsqueeze.outputs[0]), spread.outputs[0])

    output_axis = 1 if node.op_type == "ConvTranspose" else 0
    rest = tuple(axis for axis in range(weight.ndim) if axis != output_axis)
    fan_in = weight.size // weight.shape[output_axis]
    peak = np.abs(weight).max(axis=rest) * np.sqrt(fan_in)
    power = np.exp2(np.ceil(np.log2(np.maximum(peak, TINY)))).astype(np.float32)
    shape = [1] * weight.ndim
    shape[output_axis] = -1
    small = initializer(graph, f"{name}/weight", (weight / power.reshape(shape)).astype(np.float32))
    node.replace_input_with(1, small)
    factor = initializer(graph, f"{name}/power", power[None])

    give_back = ir.node("Mul", [bounded.outputs[0], factor], name=f"{name}/scale_back")
    if demodulation is not None:
        # Two passes through a generator with one code share these factors: each convolution gets its own.
        demodulate, spread_factors = demodulation
        vector = spread_factors.inputs[0]
        assert vector is not None
        whole = ir.node("Mul", [vector, give_back.outputs[0]], name=f"{name}/demodulation")
        factors = ir.node("Unsqueeze", [whole.outputs[0], spread_factors.inputs[1]], name=f"{name}/demodulation_spread")
        _insert(graph, demodulate, [give_back, whole, factors])
        place = list(demodulate.inputs).index(spread_factors.outputs[0])
        demodulate.replace_input_with(place, factors.outputs[0])
        return Modulated(node, (scaled.outputs[0], whole.outputs[0]), None)
    output = after.outputs[0]
    users = list(output.uses())
    widened = ir.node("Unsqueeze", [give_back.outputs[0], unsqueeze.inputs[1]], name=f"{name}/scale_spread")
    product = ir.node("Mul", [output, widened.outputs[0]], name=f"{name}/scaled_output")
    added = [give_back, widened, product]
    if bias is not None:
        # What the scale multiplies is the sum of products alone: the bias is added after it.
        array = constant(bias)
        assert array is not None
        node.replace_input_with(2, None)
        shift = initializer(graph, f"{name}/bias", array.reshape(1, -1, 1, 1))
        added.append(ir.node("Add", [product.outputs[0], shift], name=f"{name}/biased_output"))
    for new in added:
        new.outputs[0].name = f"{new.name}.out"
    graph.insert_after(after, added)
    for use in users:
        use.node.replace_input_with(use.idx, added[-1].outputs[0])
    return Modulated(node, (scaled.outputs[0], give_back.outputs[0]), product)


def _after_blur(node: ir.Node) -> ir.Node:
    """The node itself, or the depthwise filter that follows an upsampling convolution."""
    users = [use.node for use in node.outputs[0].uses()]
    if len(users) == 1 and users[0].op_type == "Conv" and users[0].attributes.get_int("group", 1) > 1:
        return users[0]
    return node


def _demodulation(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """(multiplication of a node's output by its demodulation factors, their Unsqueeze), if they do."""
    for use in node.outputs[0].uses():
        if use.node.op_type != "Mul":
            continue
        for value in use.node.inputs:
            source = value.producer() if value is not None else None
            if source is None or source.op_type != "Unsqueeze" or source.inputs[0] is None:
                continue
            vector = source.inputs[0].producer()
            if vector is not None and vector.op_type == "Reciprocal":
                return use.node, source
    return None
