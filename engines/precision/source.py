"""A bundle's graph with its weights in memory, everything constant computed, and the shapes it has at batch 1."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass
from safetensors.numpy import load

from engines.bundle import WEIGHTS_FILE, Bundle
from engines.errors import EngineError

MAX_OPSET = 20
"""The opset of exported graphs. Runtimes lag behind the standard, so a newer graph is refused by name."""


@dataclass(frozen=True)
class Tensor:
    """Type and shape of a value at batch 1."""

    dtype: str
    """NumPy's name."""
    shape: tuple[int, ...]

    @property
    def floating(self) -> bool:
        return self.dtype.startswith(("float", "bfloat"))

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape))


def load_source(bundle: Bundle, graph: str) -> ir.Model:
    """A graph whose floating-point initializers are FP32 arrays in memory, with no node left that a constant feeds
    alone.

    Raises:
        BundleError: if the bundle lacks the graph, or a file of it is damaged.
        EngineError: if the graph uses a newer opset than is built here, or cannot be read.
    """
    entry = bundle.graph(graph)
    data = bundle.read(entry.file)
    try:
        model = ir.from_proto(onnx.load_from_string(data))
    except Exception as error:  # protobuf and onnx raise unrelated types
        raise EngineError(f"{bundle.name}: {entry.file} is not an ONNX model: {str(error).splitlines()[0]}") from error
    opset = model.graph.opset_imports.get("", 0)
    if opset > MAX_OPSET:
        raise EngineError(
            f"{bundle.name}: graph {graph} uses ONNX opset {opset}, and engines are built from at most {MAX_OPSET}; "
            "export it again with this edgedit"
        )
    _name_nodes(model)
    _attach(model, bundle)
    fold_constants(model)
    return model


def _name_nodes(model: ir.Model) -> None:
    """Gives every node a name of its own: what stays in FP32 is told by name."""
    used: set[str] = set()
    for index, node in enumerate(model.graph):
        if not node.name or node.name in used:
            node.name = f"{node.op_type}_{index}"
        used.add(node.name)


def _attach(model: ir.Model, bundle: Bundle) -> None:
    """Replaces external initializers by arrays from the checked bytes of the weights file."""
    external = {
        name: value
        for name, value in model.graph.initializers.items()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    if not external:
        return
    weights: Mapping[str, np.ndarray] = load(bundle.read(WEIGHTS_FILE))
    for name, value in external.items():
        if name not in weights:
            raise EngineError(f"{bundle.name}: the weights file has no tensor {name}; export the bundle again")
        value.const_value = ir.tensor(weights[name], name=name)


def fold_constants(model: ir.Model) -> None:
    """Computes every node whose inputs are all initializers, and drops what nothing reads any more."""
    graph = model.graph
    opsets = dict(graph.opset_imports)
    for node in list(graph):
        inputs = [value for value in node.inputs if value is not None]
        if not inputs or not all(value.is_initializer() for value in inputs) or len(node.outputs) != 1:
            continue
        feeds = {str(value.name): _array(value) for value in inputs}
        (result,) = ReferenceEvaluator(ir.to_proto(node), opsets=opsets).run(None, feeds)
        output = node.outputs[0]
        folded = initializer(graph, str(output.name), np.ascontiguousarray(result))
        output.replace_all_uses_with(folded, replace_graph_outputs=True)
        graph.remove(node, safe=True)
    RemoveUnusedNodesPass()(model)


def copy_of(model: ir.Model) -> ir.Model:
    """A model of its own to change; arrays are shared. onnx-ir's clones share the types of their values too, and a type
    that is set on one value would be set on its original."""
    made = model.clone()
    graph = made.graph
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.type is not None:
            value.type = copy.copy(value.type)
    return made


def initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Registers an array as an initializer of that name."""
    value = ir.Value(
        name=name,
        const_value=ir.tensor(array, name=name),
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
    )
    graph.register_initializer(value)
    return value


def _array(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer, None for anything else."""
    return _array(value) if value is not None and value.is_initializer() else None


def shapes(model: ir.Model) -> dict[str, Tensor]:
    """Type and shape at batch 1 of every value that has a name.

    Raises:
        EngineError: if a shape does not follow from the inputs.
    """
    # A clone, because the model itself keeps its dynamic batch.
    fixed = model.clone()
    for value in fixed.graph.inputs:
        value.shape = ir.Shape([d if isinstance(d, int) else 1 for d in value.shape or ()])
    for node in fixed.graph:
        for value in node.outputs:
            value.shape = None
    for value in fixed.graph.outputs:
        value.shape = None
    ShapeInferencePass()(fixed)
    specs: dict[str, Tensor] = {}
    values = [*fixed.graph.inputs, *fixed.graph.initializers.values()]
    values += [value for node in fixed.graph for value in node.outputs]
    for value in values:
        extents = tuple(d for d in value.shape or () if isinstance(d, int))
        if value.dtype is None or value.shape is None or len(extents) < len(value.shape):
            where = value.producer()
            label = f"{where.op_type} {where.name}" if where else "an input"
            raise EngineError(f"the shape of {value.name} ({label}) does not follow from the graph's inputs")
        specs[str(value.name)] = Tensor(str(value.dtype.numpy()), extents)
    return specs
