"""PyTorch graph module -> ONNX structure whose weights all lie outside, in one safetensors file.

The exporter names each initializer after the parameter it came from. Before anything is optimised, every named weight
is taken out and replaced by FP16 placeholder -> Cast to FP32, so that no optimisation can fold it into a constant of
its own; afterwards the placeholders become external data (location, offset, length). Expressions over weights, such as
W * scale, stay in the graph: runtimes fold them at load, and the bundle holds every weight once.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
from onnxscript.optimizer import optimize_ir

from engines.bundle import EXTERNAL_LOCATION
from engines.contracts import TensorSpec
from export.bound import SYSTEM_PREFIX, BoundGraph, batch_shapes, example_inputs
from export.errors import ExportError
from export.haar import one_operator
from export.weights import WeightEntry

OPSET = 20
"""Attention stays decomposed (the fused operator of opset 23 fails in FP32 with TensorRT-RTX)."""

INLINE_LIMIT = 4096
"""Bytes of the largest nameless floating-point constant that may stand in a graph: more would be a folded weight."""

BUFFER_LIMIT = 4 * 2**20
"""The same for a buffer that the graph computes from its family and does not store, such as a pooling matrix or that of
a resize from 1024 pixels."""

_DTYPES = {"float32": ir.DataType.FLOAT, "uint8": ir.DataType.UINT8}


@dataclass(frozen=True, kw_only=True)
class ExportedGraph:
    """A graph's bytes and what it reads from the weights file."""

    name: str
    data: bytes
    """A serialised ONNX model without weights."""
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    weights: tuple[str, ...]
    """State-dict names of the tensors it reads, sorted."""
    nodes: int


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter's notes on its own internals from the user's screen; its errors are exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _trace(graph: BoundGraph) -> ir.Model:
    args = example_inputs(graph.inputs, batch=2)
    with quiet(), torch.no_grad(), one_operator(graph.module):
        program = torch.onnx.export(
            graph.module,
            args,
            dynamo=True,
            opset_version=OPSET,
            input_names=[tensor.name for tensor in graph.inputs],
            output_names=[tensor.name for tensor in graph.outputs],
            dynamic_shapes=batch_shapes(graph.module, len(args), torch.export.Dim.DYNAMIC),
            optimize=False,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter gives a program when it writes no file"
    return program.model


def _hide_weights(model: ir.Model, table: Mapping[str, WeightEntry]) -> dict[str, ir.Value]:
    """Puts a graph input of unknown value and a Cast in the place of each named weight.

    Returns:
        State-dict name to placeholder.
    """
    graph = model.graph
    hidden: dict[str, ir.Value] = {}
    casts: list[ir.Node] = []
    for full, value in list(graph.initializers.items()):
        name = full.removeprefix(SYSTEM_PREFIX)
        if name not in table:
            continue
        entry = table[name]
        if tuple(value.shape) != entry.shape or entry.dtype != "F16":
            raise ExportError(
                f"weight {name} is {tuple(value.shape)} in the network but {entry.dtype} {entry.shape} in the weights "
                "file; write the weights file from the same system"
            )
        del graph.initializers[full]
        placeholder = ir.Value(name=name, shape=ir.Shape(entry.shape), type=ir.TensorType(ir.DataType.FLOAT16))
        cast = ir.node("Cast", [placeholder], {"to": ir.DataType.FLOAT}, name=f"{name}.cast")
        cast.outputs[0].name = f"{name}.fp32"
        cast.outputs[0].shape = ir.Shape(entry.shape)
        cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        value.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
        graph.inputs.append(placeholder)
        hidden[name] = placeholder
        casts.append(cast)
    for cast in reversed(casts):
        graph.insert_before(graph[0], cast)
    return hidden


def _attach_weights(model: ir.Model, hidden: Mapping[str, ir.Value], table: Mapping[str, WeightEntry]) -> list[str]:
    """Turns placeholders into external initializers; those that nothing reads any more go."""
    graph = model.graph
    used = sorted(name for name, value in hidden.items() if value.uses())
    placeholders = {id(value) for value in hidden.values()}
    real_inputs = [value for value in graph.inputs if id(value) not in placeholders]
    graph.inputs.clear()
    graph.inputs.extend(real_inputs)
    for name in used:
        value, entry = hidden[name], table[name]
        value.const_value = ir.ExternalTensor(
            EXTERNAL_LOCATION, entry.offset, entry.length, ir.DataType.FLOAT16, shape=ir.Shape(entry.shape), name=name
        )
        graph.register_initializer(value)
    return used


def _check_constants(name: str, model: ir.Model, used: list[str], buffers: set[str]) -> None:
    known = set(used)
    for key, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None, f"initializer {key} has no value"
        if key in known or not tensor.dtype.is_floating_point():
            continue
        if tensor.nbytes > (BUFFER_LIMIT if key.removeprefix(SYSTEM_PREFIX) in buffers else INLINE_LIMIT):
            raise ExportError(
                f"graph {name} holds the constant {key} of {tensor.nbytes} bytes that is no weight of the system; "
                "register it as a buffer, or compute it in the graph"
            )


def _set_contract(name: str, which: str, values: list[ir.Value], specs: list[TensorSpec]) -> None:
    """Writes names and symbolic shapes of the contract, after checking that the traced graph has them."""
    if len(values) != len(specs):
        raise ExportError(f"graph {name} has {len(values)} {which}s, its contract has {len(specs)}")
    for value, spec in zip(values, specs, strict=True):
        traced = [dim if isinstance(dim, int) else None for dim in value.shape or ()]
        wanted = [dim if isinstance(dim, int) else None for dim in spec.shape]
        if traced != wanted or value.dtype != _DTYPES[spec.dtype] or value.name != spec.name:
            raise ExportError(
                f"graph {name}: {which} {value.name} came out as {value.dtype} {traced}, "
                f"its contract is {spec.name}, {spec.dtype} {list(spec.shape)}"
            )
        value.shape = ir.Shape(spec.shape)


def _strip(model: ir.Model) -> None:
    """Removes what only a debugger reads: traces with paths of this machine, and shapes of intermediate values."""
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.doc_string = None
    model.producer_version = torch.__version__.split("+")[0]
    graph = model.graph
    graph.metadata_props.clear()
    graph.doc_string = None
    boundary = {id(value) for value in (*graph.inputs, *graph.outputs)}
    inner = (*graph.initializers.values(), *(value for node in graph for value in node.outputs))
    for value in (*graph.inputs, *inner):
        value.metadata_props.clear()
        value.doc_string = None
        if id(value) not in boundary:
            value.shape = value.type = None


def export_graph(graph: BoundGraph, table: Mapping[str, WeightEntry]) -> ExportedGraph:
    """A graph as ONNX structure, with a dynamic batch.

    Args:
        graph: its networks' state dict is what the weights file holds.
        table: of the weights file, see `export.weights`.

    Raises:
        ExportError: if the graph does not meet its contract, or holds a large constant that is no named weight.
    """
    name, inputs, outputs = graph.name, graph.inputs, graph.outputs
    model = _trace(graph)
    hidden = _hide_weights(model, table)
    # Whatever is larger a runtime folds at load: window masks, for one, grow with the square of the window.
    optimize_ir(model, output_size_limit=INLINE_LIMIT // 4)
    RemoveUnusedNodesPass()(model)
    used = _attach_weights(model, hidden, table)
    _check_constants(name, model, used, {key.removeprefix(SYSTEM_PREFIX) for key, _ in graph.module.named_buffers()})
    _set_contract(name, "input", list(model.graph.inputs), inputs)
    _set_contract(name, "output", list(model.graph.outputs), outputs)
    _strip(model)
    model.graph.name = name
    data = ir.to_proto(model).SerializeToString(deterministic=True)
    return ExportedGraph(
        name=name, data=data, inputs=inputs, outputs=outputs, weights=tuple(used), nodes=len(model.graph)
    )
