"""The distance of a graph's activations from FP16's limit, and how near its products could come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from engines.precision.fp32_rules import MOVES
from engines.precision.source import constant

LIMIT = 65504.0
"""The largest finite FP16 value."""
HIGH = LIMIT / 8
"""The magnitude from which a value is named: three doublings are left."""


@dataclass(frozen=True)
class Ranges:
    """The largest magnitudes seen while a graph ran."""

    largest: float
    """The largest of all FP16 values; infinite if one overflowed."""
    high_peaks: dict[str, float]
    """The magnitudes of at least `HIGH` by value, largest first."""
    overflowed: list[str]
    """Values that left the range, in the order of the graph: the first is where it began."""

    @property
    def headroom(self) -> float:
        """The factor by which the activations might be larger."""
        return LIMIT / self.largest if self.largest else float("inf")


def ranges(peaks: Mapping[str, float]) -> Ranges:
    """Sums up the peaks of an `emulate.Emulated` run: by FP16 value, its largest magnitude."""
    high_peaks = sorted(((peak, name) for name, peak in peaks.items() if peak >= HIGH), reverse=True)
    return Ranges(
        largest=max(peaks.values(), default=0.0),
        high_peaks={name: peak for peak, name in high_peaks},
        overflowed=[name for name, peak in peaks.items() if peak > LIMIT],
    )


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product in FP16 with constant weights, and what may come out of it at worst.

    By the triangle inequality no result is larger than `gain` times the largest value that enters, plus `bias`:
    whatever the values are, and however they line up with the weights.
    """

    name: str
    takes: str
    """The value whose peak counts; one of `Emulated.peaks`."""
    gain: float
    """The largest sum of magnitudes of the weights that make one output channel."""
    bias: float

    def margin(self, largest: float) -> float:
        """The factor by which the limit is out of reach, given the largest magnitude that enters; below 1 an overflow
        is not excluded by this bound."""
        return LIMIT / bound if (bound := self.gain * largest + self.bias) else float("inf")


def products(model: ir.Model) -> list[Product]:
    """The FP16 products of a typed graph (see `typed.retype`), before it is emulated.

    For a StyleGAN2 convolution, pre-normalised weights are at most 1 / sqrt(fan-in) and styles at most 1 (see
    `rewrite`), so that its gain is at most sqrt(fan-in) whatever generator it is of: 68 for 3 x 3 over 512 channels.
    """
    products = []
    for node in model.graph:
        axis = _output_axis(node)
        weight = constant(node.inputs[1]) if axis is not None and len(node.inputs) > 1 else None
        data = node.inputs[0] if node.inputs else None
        if axis is None or weight is None or data is None or node.outputs[0].dtype != ir.DataType.FLOAT16:
            continue
        magnitude = np.abs(weight.astype(np.float64))
        rest = tuple(other for other in range(weight.ndim) if other != axis % weight.ndim)
        bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        products.append(
            Product(
                name=str(node.name),
                takes=str(_computed(data).name),
                gain=float(magnitude.sum(axis=rest).max()),
                bias=0.0 if bias is None else float(np.abs(bias.astype(np.float64)).max()),
            )
        )
    return products


def _output_axis(node: ir.Node) -> int | None:
    """The axis of a product's weights that its output channels lie along; None for what is no product."""
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}.get(node.op_type)


def _computed(value: ir.Value) -> ir.Value:
    """The value that was computed, of one that was only moved since. A cast from FP32 rounds, and is watched."""
    node = value.producer()
    while node is not None and node.op_type in MOVES and node.op_type != "Cast" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def least_margin(products: Iterable[Product], peaks: Mapping[str, float]) -> tuple[float, str]:
    """The smallest margin of all products whose input was watched, and whose it is; infinite, and nobody's, if there
    are none."""
    margins = [(one.margin(peaks[one.takes]), one.name) for one in products if one.takes in peaks]
    return min(margins, default=(float("inf"), ""))
