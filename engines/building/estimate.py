"""Bounds on what a device can do with a bundle's graphs, and whether they fit, before anything is built.

The floor is a bound that no engine beats: all products at the rate of the tensor cores, weights, inputs and outputs
once through the memory bus, whichever takes longer. Activations are left out of it, since caches may hold them. An
8-bit engine leaves some products and weights in FP16, so that its floor is a little further away; what passes between
its nodes is FP16 (see `precision.quantise`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engines.building.devices import Gpu
from engines.bundle import Bundle
from engines.bundle.engine_manifest import EIGHT_BIT, Precision
from engines.errors import EngineError, RuntimeUnavailableError

if TYPE_CHECKING:
    import onnx_ir as ir

    from engines.precision.source import Tensor


@dataclass(frozen=True)
class Work:
    """The work of a graph at batch 1. Floating-point values are counted, integers are bytes already."""

    graph: str
    macs: int
    weights: int
    """Floating-point weights."""
    interface_bytes: int
    """Inputs and outputs, as their contract has them."""
    peak: int
    """Floating-point values alive at once between two nodes, at most: what an engine without fusion would hold."""


@dataclass(frozen=True)
class Floor:
    """A graph on a device."""

    graph: str
    macs: int
    """Multiply-accumulates of the whole batch."""
    weight_bytes: int
    interface_bytes: int
    activation_bytes: int
    """The largest that live at once, without fusion."""
    compute_ms: float
    memory_ms: float

    @property
    def milliseconds(self) -> float:
        """The longer of the two."""
        return max(self.compute_ms, self.memory_ms)

    @property
    def bound(self) -> Literal["compute", "memory"]:
        return "compute" if self.compute_ms >= self.memory_ms else "memory"

    @property
    def needed_bytes(self) -> int:
        """Device memory for weights, activations, inputs and outputs, at least: kernels take scratch memory besides."""
        return self.weight_bytes + self.interface_bytes + self.activation_bytes

    def fits(self, gpu: Gpu) -> bool:
        """True if that is less than the device has. No is certain; yes leaves out scratch memory and a Jetson's CPU."""
        return self.needed_bytes < gpu.memory_gb * 1e9


def estimate(
    bundle: Bundle, graphs: Collection[str], gpu: Gpu, *, precision: Precision = "fp16", batch: int = 1
) -> list[Floor]:
    """The floors of graphs on a device.

    Args:
        bundle: where the graphs are; their structure is read, their weights are not.
        precision: what the products would be in.

    Raises:
        BundleError: if a graph is missing or damaged.
        EngineError: for a precision that the device lacks, a batch below 1, or a graph that cannot be read.
        RuntimeUnavailableError: if the packages that read graphs are not installed.
    """
    gpu.tflops(precision)  # refuses a precision before any graph is read
    if batch < 1:
        raise EngineError(f"--batch must be 1 or more, got {batch}")
    return [floor(work(bundle, name), gpu, precision=precision, batch=batch) for name in graphs]


def floor(done: Work, gpu: Gpu, *, precision: Precision = "fp16", batch: int = 1) -> Floor:
    """The least time and memory that a device takes for a graph."""
    size = 4 if precision == "fp32" else 2
    stored = 1 if precision in EIGHT_BIT else size
    macs, weights, interface = done.macs * batch, done.weights * stored, done.interface_bytes * batch
    return Floor(
        graph=done.graph,
        macs=macs,
        weight_bytes=weights,
        interface_bytes=interface,
        activation_bytes=done.peak * size * batch,
        # One multiply-accumulate is two operations.
        compute_ms=2 * macs / (gpu.tflops(precision) * 1e12) * 1e3,
        memory_ms=(weights + interface) / (gpu.bandwidth_gbs * 1e9) * 1e3,
    )


def work(bundle: Bundle, graph: str) -> Work:
    """Counts a graph of a bundle at batch 1 from its structure.

    Raises:
        BundleError: if it is missing or damaged.
        EngineError: if it cannot be read.
        RuntimeUnavailableError: if onnx is not installed.
    """
    try:
        import onnx
        import onnx_ir as ir

        from engines.precision.macs import macs
        from engines.precision.source import shapes
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"estimating needs {error.name}: pip install onnx onnx-ir") from error
    file = bundle.graph(graph).file
    try:
        model = ir.from_proto(onnx.load_from_string(bundle.read(file)))
    except (ValueError, RuntimeError) as error:
        raise EngineError(f"{bundle.name}: {file} is not an ONNX model") from error
    specs = shapes(model)
    ends = [specs[str(value.name)] for value in (*model.graph.inputs, *model.graph.outputs)]
    return Work(
        graph=graph,
        macs=sum(macs(node, specs) for node in model.graph),
        weights=sum(specs[n].elements for n in model.graph.initializers if specs[n].floating),
        interface_bytes=sum(tensor.elements * _itemsize(tensor) for tensor in ends),
        peak=_peak(model, specs),
    )


def _itemsize(tensor: Tensor) -> int:
    import numpy as np

    return np.dtype(tensor.dtype).itemsize


def _peak(model: ir.Model, specs: Mapping[str, Tensor]) -> int:
    """The most floating-point values alive at once, in the order of the nodes; what depends on no input is a weight."""
    nodes = list(model.graph)
    last = {str(value.name): i for i, node in enumerate(nodes) for value in node.inputs if value is not None}
    last |= {str(value.name): len(nodes) for value in model.graph.outputs}
    alive = {str(value.name) for value in model.graph.inputs}
    depends = set(alive)
    peak = 0
    for index, node in enumerate(nodes):
        names = {str(value.name) for value in node.outputs if value.name}
        if any(value is not None and str(value.name) in depends for value in node.inputs):
            depends |= names
            alive |= {name for name in names if specs[name].floating}
        peak = max(peak, sum(specs[name].elements for name in alive))
        alive = {name for name in alive if last.get(name, -1) > index}
    return peak
