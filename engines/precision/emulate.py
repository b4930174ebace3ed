"""FP16 arithmetic on a CPU: every node that a typed graph computes in FP16 is computed in FP32 from FP16 values, and
its result is rounded to FP16, range included.

That is what a tensor core does, which multiplies FP16 values and adds in FP32; a kernel that keeps a wider value
between two fused nodes only does better. 8-bit products are those of the graph's own QuantizeLinear and
DequantizeLinear: what these give is multiplied and summed in FP32, unrounded, as 8-bit kernels sum. ONNX Runtime's CPU
provider by itself computes FP16 graphs in FP32 throughout, so that no overflow and hardly any rounding would show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from engines.precision.fp32_rules import MOVES
from engines.precision.source import constant
from engines.runtimes.ort import session

_HALF, _SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT


class Emulated:
    """A graph that runs on the CPU as it would in FP16.

    Args:
        model: with types, see `typed.retype`; it is changed.
        watch: also measure the largest magnitude of every FP16 value, see `peaks`.
        threads: of ONNX Runtime, see `engines.cpus.threads`.
    """

    def __init__(self, model: ir.Model, *, watch: bool = False, threads: int = 0) -> None:
        self._outputs = [str(value.name) for value in model.graph.outputs]
        self._watched = _emulate(model, watch)
        options = ort.SessionOptions()
        # Any optimization might take two casts that undo each other for nothing.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Through a file: a model of the full family is larger than a protobuf message may be.
        with TemporaryDirectory(prefix="edgedit-emulate-") as folder:
            file = Path(folder) / "model.onnx"
            ir.save(model, file, external_data="weights")
            self._session = session(file, threads=threads, options=options)
        self.peaks: dict[str, float] = {}
        """The largest magnitude of each value in all runs so far; infinite after an overflow."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs once; names as in the bundle's graph."""
        names = [*self._outputs, *self._watched.values()]
        with np.errstate(over="ignore", invalid="ignore"):
            values = self._session.run(names, dict(feeds))
        for name, value in zip(self._watched, values[len(self._outputs) :], strict=True):
            peak = float(np.asarray(value))
            self.peaks[name] = max(self.peaks.get(name, 0.0), np.inf if np.isnan(peak) else peak)
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=False)}


def _emulate(model: ir.Model, watch: bool) -> dict[str, str]:
    graph = model.graph
    for value in list(graph.initializers.values()):
        if value.dtype == _HALF:
            array = constant(value)
            assert array is not None
            value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
            value.dtype = _SINGLE
    watched: dict[str, str] = {}
    for node in list(graph):
        halves = [value for value in node.outputs if value.dtype == _HALF]
        if node.op_type == "Cast" and node.attributes.get_int("to") == _HALF:
            # From FP32 it rounds like any other node; the cast itself becomes a no-op.
            node.attributes["to"] = ir.AttrInt64("to", _SINGLE)
        elif node.op_type in MOVES:
            for value in halves:
                value.dtype = _SINGLE
            continue
        for value in halves:
            value.dtype = _SINGLE
            rounded = _round(graph, value, node)
            if watch:
                watched[str(value.name)] = _peak(graph, rounded, node)
    return watched


def _after(graph: ir.Graph, node: ir.Node, new: Sequence[ir.Node]) -> None:
    for one in new:
        one.outputs[0].name = f"{one.name}.out"
    graph.insert_after(node, list(new))


def _round(graph: ir.Graph, value: ir.Value, node: ir.Node) -> ir.Value:
    """FP32 to FP16 and back, in the place of the value."""
    users = list(value.uses())
    down = ir.node("Cast", [value], {"to": _HALF}, name=f"{value.name}/round")
    up = ir.node("Cast", [down.outputs[0]], {"to": _SINGLE}, name=f"{value.name}/rounded")
    _after(graph, node, [down, up])
    for use in users:
        use.node.replace_input_with(use.idx, up.outputs[0])
    return up.outputs[0]


def _peak(graph: ir.Graph, value: ir.Value, node: ir.Node) -> str:
    """Adds the largest magnitude of a value to the graph's outputs."""
    source = value.producer() or node
    magnitude = ir.node("Abs", [value], name=f"{value.name}/magnitude")
    largest = ir.node("ReduceMax", [magnitude.outputs[0]], {"keepdims": 0}, name=f"{value.name}/peak")
    _after(graph, source, [magnitude, largest])
    output = largest.outputs[0]
    output.type, output.shape = ir.TensorType(_SINGLE), ir.Shape(())
    graph.outputs.append(output)
    return str(output.name)
