"""The sortable tables of the report: one row per layer, or one per pair of matched layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engines.bundle.layers import Layer
from engines.inspector.compare import Comparison, pair_times, time_label
from engines.inspector.figures import Figures, clean, ms, percent, precision_label, shape, si

_MAX_CHOICES = 200
"""Choices of one filter; what is rarer is filtered by text."""

STATUS = {"same": "same precision", "precision": "precision differs", "only A": "only in A", "only B": "only in B"}


@dataclass(frozen=True)
class Detail:
    """The room that a page has for names."""

    name: int
    tensors: int
    fused: int


@dataclass(frozen=True)
class Column:
    """A column that can be sorted; `values` are what it is sorted by, None for the cells' text."""

    key: str
    label: str
    cells: Sequence[object] = ()
    """Empty for names, which the template writes."""
    hint: str = ""
    values: Sequence[float | None] | None = None
    badge: bool = False
    """Whether cells are precisions."""


def _numbers(key: str, label: str, values: Sequence[Any], write: Callable[[Any], str], hint: str = "") -> Column:
    return Column(key, label, ["" if value is None else write(value) for value in values], hint, values)


@dataclass(frozen=True)
class LayerTable:
    """What a page and its script need to show a table."""

    columns: list[Column]
    rows: list[tuple[int, Any]]
    """A number and a `Layer`, or a number and a pair of `Side`."""
    choices: dict[str, list[str]]
    """A label per row, by the key of a filter."""
    macs: list[int]

    @property
    def data(self) -> dict[str, Any]:
        """Numbers and choices for the script."""
        facets = {}
        for key, labels in self.choices.items():
            there = _choices(labels)
            index = {label: i for i, label in enumerate(there)}
            facets[key] = {"labels": there, "of": [index.get(label, -1) for label in labels]}
        values = {c.key: [_short(v) for v in c.values] for c in self.columns if c.values is not None}
        return {"values": values, "facets": facets, "macs": self.macs}


def _short(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.6g}")


def _choices(labels: Iterable[str]) -> list[str]:
    return sorted(label for label, _ in Counter(labels).most_common(_MAX_CHOICES))


def least_bytes(figures: Figures, detail: Detail) -> int:
    """A lower bound of what the rows take, found without making them: a report may hold far more than fits."""
    total = 0
    for index in figures.selection:
        layer = figures.report.layers[index]
        texts = [layer.name, *layer.fused[: detail.fused]]
        for tensors in (layer.inputs, layer.outputs):
            texts += [tensor.name for tensor in tensors[: detail.tensors]]
        total += sum(min(len(words), detail.name) for words in texts)
    return total


def _count(value: float) -> str:
    return si(value) if value else ""


def _bytes(value: float) -> str:
    return si(value, "B")


def layer_table(figures: Figures) -> LayerTable:
    """One row per layer that the page shows."""
    layers = [figures.report.layers[i] for i in figures.selection]
    precisions = [precision_label(layer.precision) for layer in layers]
    operators = [clean(layer.operator, 40) for layer in layers]
    floors = [figures.floor(layer) for layer in layers]
    sizes = [_elements(layer) for layer in layers]
    columns = [
        Column("n", "#", figures.selection, "position in the network", figures.selection),
        Column("name", "layer"),
        Column("operator", "operator", operators),
        Column("precision", "precision", precisions, badge=True),
        Column("shape", "shape", [_shapes(layer) for layer in layers], "first input → first output", sizes),
        _numbers("macs", "MACs", [x.macs for x in layers], _count, "multiply-accumulates at batch 1"),
        _numbers("weights", "weights", [x.weight_bytes for x in layers], lambda v: _bytes(v) if v else "", "bytes"),
        _numbers("activations", "activations", [x.activation_bytes for x in layers], _bytes, "bytes read and written"),
        _numbers(
            "intensity",
            "FLOP/byte",
            [figures.intensity(x) for x in layers],
            lambda v: f"{v:.3g}" if v else "",
            "arithmetic intensity",
        ),
    ]
    if figures.device is not None:
        columns.append(_numbers("floor", "floor ms", floors, ms, f"the least that {figures.device.name} allows"))
    if figures.measured:
        columns.append(_numbers("ms", "ms", [x.milliseconds for x in layers], ms, "measured, median"))
    if figures.device is not None and figures.measured:
        reach = [
            floor / layer.milliseconds if floor is not None and layer.milliseconds else None
            for layer, floor in zip(layers, floors, strict=True)
        ]
        columns.append(_numbers("reach", "of floor", reach, percent, "floor over measured time"))
    rows = list(zip(figures.selection, layers, strict=True))
    return LayerTable(columns, rows, {"precision": precisions, "operator": operators}, [x.macs for x in layers])


def _elements(layer: Layer) -> int:
    return min(math.prod(max(abs(n), 1) for n in layer.outputs[0].shape) if layer.outputs else 1, 2**53)


def _shapes(layer: Layer) -> str:
    sides = [
        f"{shape(side[0].shape)}{f' +{len(side) - 1}' if len(side) > 1 else ''}"
        for side in (layer.inputs, layer.outputs)
        if side
    ]
    return " → ".join(dict.fromkeys(sides))


def pair_table(comparison: Comparison, selected: Sequence[int], a: Figures, b: Figures) -> LayerTable:
    """One row per selected pair of matched layers; times are measured where both reports are, else floors."""
    pairs = [comparison.pairs[i] for i in selected]
    sides = [(comparison.side_a(pair), comparison.side_b(pair)) for pair in pairs]
    operators = [clean((x.layers or y.layers)[0].operator, 40) for x, y in sides]
    statuses = [STATUS[comparison.status(pair)] for pair in pairs]
    columns = [
        Column("n", "#", selected, "position", selected),
        Column("name", "layer"),
        Column("operator", "operator", operators),
        Column("match", "match", statuses),
        Column("pa", "A precision", [x.precision for x, _ in sides], badge=True),
        Column("pb", "B precision", [y.precision for _, y in sides], badge=True),
        _numbers("macs", "A MACs", [x.macs for x, _ in sides], _count),
        _numbers("macsb", "B MACs", [y.macs for _, y in sides], _count),
    ]
    for k, (key, letter) in enumerate((("bytes", "A"), ("bytesb", "B"))):
        moved = [pair[k].bytes if pair[k].layers else None for pair in sides]
        columns.append(_numbers(key, f"{letter} bytes", moved, _bytes, "weights and activations"))
    if label := time_label(a, b):
        times = [pair_times(x, y, a, b) for x, y in sides]
        ratios = [second / first if first and second is not None else None for first, second in times]
        columns += [
            _numbers("ms", f"A {label}", [first for first, _ in times], ms),
            _numbers("msb", f"B {label}", [second for _, second in times], ms),
            _numbers("ratio", "B / A", ratios, "{:.2f}".format, f"{label}, B over A"),
        ]
    rows = list(zip(selected, sides, strict=True))
    return LayerTable(columns, rows, {"match": statuses, "operator": operators}, [x.macs or y.macs for x, y in sides])
