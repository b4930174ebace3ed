"""A bundle's graph as a strongly typed ONNX model on disk, and the report of its layers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from engines.bundle import Bundle
from engines.bundle.layers import NO_PRODUCT, Layer, LayerReport, LayerTensor
from engines.contracts import TensorSpec
from engines.errors import EngineError
from engines.precision.fp32_rules import MOVES, fp32_nodes
from engines.precision.macs import macs
from engines.precision.quantise import QUANTISED, Peak, chosen, computes_in, quantise, split_exempt, worth_it
from engines.precision.rewrite import fold_batch_norms, prenormalise
from engines.precision.source import Tensor, constant, initializer, load_source, shapes
from engines.store import cannot_write

PRECISIONS = ("fp32", "fp16", *QUANTISED)
"""The precisions that `lower` offers."""

_HALF, _SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
_ALWAYS_SINGLE = {"Resize": (1, 2)}
"""Inputs that the operator's definition wants in FP32 whatever its data are."""
_EMBEDDED = 1024
"""Bytes up to which an initializer stands in the model itself."""


@dataclass(frozen=True)
class TypedGraph:
    """A strongly typed graph on disk. Its inputs and outputs are those of the bundle's graph."""

    name: str
    file: Path
    """The model; larger weights are external data in `<graph>.weights` beside it."""
    report: LayerReport
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


def lower(
    bundle: Bundle,
    graph: str,
    precision: str,
    folder: Path,
    *,
    keep_fp32: Collection[str] = frozenset(),
    peaks: Mapping[str, Peak] | None = None,
    single: bool = False,
) -> TypedGraph:
    """Writes a graph of a bundle in a precision.

    Args:
        precision: one of `PRECISIONS`.
        folder: a directory that is there; `<graph>.onnx` and `<graph>.weights` in it are replaced.
        keep_fp32: names of nodes that stay one step wider than the rules have them: an 8-bit product in FP16, any other
            node in FP32.
        peaks: for 8 bits, the ranges of the data, see `calibrate.calibrate`.
        single: for a CPU: what is not in 8 bits is in FP32, since FP16 gains nothing there.

    Raises:
        EngineError: for a precision that is not offered, 8 bits without ranges, a node to widen that is not there, or a
            graph that cannot be read.
        OutputError: if the folder cannot be written.
    """
    model = load_source(bundle, graph)
    reasons = retype(model, precision, keep_fp32, peaks, single=single)
    report = describe(model, graph, precision, reasons)
    entry = bundle.graph(graph)
    file = write_model(model, folder / f"{graph}.onnx")
    return TypedGraph(graph, file, report, list(entry.inputs), list(entry.outputs))


def retype(
    model: ir.Model,
    precision: str,
    keep_fp32: Collection[str] = frozenset(),
    peaks: Mapping[str, Peak] | None = None,
    *,
    single: bool = False,
) -> dict[str, str]:
    """Gives a source graph (see `source.load_source`) the types of a precision, in place.

    Returns:
        By name of a node that is wider than was asked for, why; empty for "fp32". With 8 bits asked, products in FP16
        are named, and what else is in FP16 is not.

    Raises:
        EngineError: as `lower`.
    """
    if precision not in PRECISIONS:
        raise EngineError(f"precision {precision!r} is not offered; there are {', '.join(PRECISIONS)}")
    if single and precision == "fp16":
        raise EngineError("FP16 gains nothing on a CPU; build int8 or fp32 for it")
    if precision in QUANTISED and peaks is None:
        raise EngineError(f"precision {precision} needs the ranges of activations, which are measured on photos")
    fold_batch_norms(model)
    if precision == "fp32":
        RemoveUnusedNodesPass()(model)
        return {}
    specs = shapes(model)
    modulated = prenormalise(model, specs)
    if unknown := sorted(set(keep_fp32) - {str(node.name) for node in model.graph}):
        raise EngineError(f"there is no node {unknown[0]} to widen")
    specs = shapes(model)
    products: list[ir.Node] = []
    narrow: dict[str, str] = {}
    if precision in QUANTISED:
        every, narrow = chosen(model, specs, modulated, fp32_nodes(model, specs, modulated))
        if single:
            every, little = worth_it(every, specs)
            narrow |= little
        products, back = split_exempt(every, keep_fp32)
        narrow |= back
        keep_fp32 = set(keep_fp32) - set(back)
    reasons = fp32_nodes(model, specs, modulated, keep_fp32)
    if not single:
        _Caster(model, specs, reasons).run()
    if peaks is not None:
        narrowed = [node for node in products if str(node.name) not in reasons]
        quantise(model, narrowed, precision, peaks, single=single)
    RemoveUnusedNodesPass()(model)
    return narrow | reasons


class _Caster:
    """Decides the type of every node and puts casts where two meet."""

    def __init__(self, model: ir.Model, specs: dict[str, Tensor], wide: Collection[str]) -> None:
        self.graph = model.graph
        self.specs = specs
        self.wide = wide
        self.types: dict[int, ir.DataType] = {}
        self.made: dict[tuple[int, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        contract = [(value, value.name) for value in self.graph.outputs]
        for value in self.graph.inputs:
            self.types[id(value)] = value.dtype or _SINGLE
        for node in list(self.graph):
            self._node(node)
        for index, (value, name) in enumerate(contract):
            if self.types.get(id(value)) == _HALF:
                value.name = f"{name}.fp16"
                cast = self._cast(value, _SINGLE, after=value.producer())
                cast.name = name
                cast.shape = value.shape
                self.graph.outputs[index] = cast
                value.shape = None

    def _floating(self, value: ir.Value | None) -> bool:
        return value is not None and str(value.name) in self.specs and self.specs[str(value.name)].floating

    def _node(self, node: ir.Node) -> None:
        wanted = self._type(node)
        exempt = _ALWAYS_SINGLE.get(node.op_type, ())
        for index, value in enumerate(node.inputs):
            if value is not None and self._floating(value) and index not in exempt:
                node.replace_input_with(index, self._as(value, wanted, node))
        if node.op_type == "Cast" and node.attributes.get_int("to") == _SINGLE and wanted == _HALF:
            node.attributes["to"] = ir.AttrInt64("to", _HALF)
        for value in node.outputs:
            if self._floating(value):
                self.types[id(value)] = wanted
                value.dtype = wanted

    def _type(self, node: ir.Node) -> ir.DataType:
        if str(node.name) in self.wide:
            return _SINGLE
        if node.op_type in MOVES:
            data = [self.types[id(v)] for v in node.inputs if v is not None and id(v) in self.types]
            kinds = {kind for kind in data if kind in (_HALF, _SINGLE)}
            # What moves values keeps their type; where types meet, the smaller is what the next node asks for.
            return _SINGLE if kinds == {_SINGLE} else _HALF
        return _HALF

    def _as(self, value: ir.Value, wanted: ir.DataType, user: ir.Node) -> ir.Value:
        if not value.is_initializer():
            return value if self.types[id(value)] == wanted else self._cast(value, wanted, before=user)
        if wanted == _SINGLE:
            return value
        key = (id(value), wanted)
        if key not in self.made:
            array = constant(value)
            assert array is not None
            with np.errstate(over="ignore"):
                half = array.astype(np.float16)
            if not np.isfinite(half).all():
                raise EngineError(f"weight {value.name} does not fit FP16 (largest {np.abs(array).max():.4g})")
            self.made[key] = initializer(self.graph, f"{value.name}.fp16", half)
        return self.made[key]

    def _cast(
        self, value: ir.Value, wanted: ir.DataType, *, before: ir.Node | None = None, after: ir.Node | None = None
    ) -> ir.Value:
        key = (id(value), wanted)
        if key not in self.made:
            suffix = "fp16" if wanted == _HALF else "fp32"
            node = ir.node("Cast", [value], {"to": wanted}, name=f"{value.name}/to_{suffix}")
            node.outputs[0].name = f"{value.name}/{suffix}"
            node.outputs[0].dtype = wanted
            self.types[id(node.outputs[0])] = wanted
            if after is not None:
                self.graph.insert_after(after, node)
            else:
                assert before is not None
                self.graph.insert_before(before, node)
            self.made[key] = node.outputs[0]
        return self.made[key]


def describe(model: ir.Model, graph: str, precision: str, reasons: dict[str, str]) -> LayerReport:
    """The layers of an ONNX graph at batch 1. Weights that are dequantised count as they are stored."""
    specs = shapes(model)
    layers = []
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        if inputs and all(value.is_initializer() for value in inputs):
            continue
        stored = {id(value): _stored(value) for value in inputs}
        weights = [held for value in inputs for held in stored[id(value)]]
        data, outputs = [value for value in inputs if not stored[id(value)]], list(node.outputs)
        computes = computes_in(node) or next((spec.dtype for _, spec in _known([*data, *outputs], specs)), "none")
        reason = None
        if node.op_type not in MOVES:
            plain = NO_PRODUCT if precision in QUANTISED and computes in ("float16", "float32") else None
            reason = reasons.get(str(node.name), plain)
        layers.append(
            Layer(
                name=str(node.name),
                operator=node.op_type,
                precision=computes,
                inputs=_tensors(inputs, specs),
                outputs=_tensors(outputs, specs),
                macs=macs(node, specs),
                weight_bytes=_size(weights, specs),
                activation_bytes=_size([*data, *outputs], specs),
                reason=reason,
            )
        )
    return LayerReport(graph=graph, source="graph", precision=precision, layers=layers)


def _known(values: Iterable[ir.Value], specs: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [(str(value.name), specs[str(value.name)]) for value in values if str(value.name) in specs]


def _tensors(values: Iterable[ir.Value], specs: Mapping[str, Tensor]) -> list[LayerTensor]:
    return [LayerTensor(name=name, dtype=one.dtype, shape=list(one.shape)) for name, one in _known(values, specs)]


def _size(values: Iterable[ir.Value], specs: Mapping[str, Tensor]) -> int:
    """The bytes of values."""
    return sum(one.elements * np.dtype(one.dtype).itemsize for _, one in _known(values, specs))


def _stored(value: ir.Value) -> list[ir.Value]:
    """The initializers behind a constant input; none for data."""
    if value.is_initializer():
        return [value]
    source = value.producer()
    inputs = [v for v in source.inputs if v is not None] if source is not None else []
    return inputs if inputs and all(v.is_initializer() for v in inputs) else []


def report(bundle: Bundle, graph: str) -> LayerReport:
    """The layers of a bundle's graph as it is, in FP32."""
    return describe(load_source(bundle, graph), graph, "fp32", {})


def write_model(model: ir.Model, file: Path) -> Path:
    """Saves a model with its weights as external data beside it.

    Raises:
        OutputError: if it cannot be written.
    """
    try:
        ir.save(model, file, external_data=f"{file.stem}.weights", size_threshold_bytes=_EMBEDDED)
    except OSError as error:
        raise cannot_write(file, error) from error
    return file
