"""The tables of layers that page and terminal draw: one row per layer, or one per pair of matched layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from engines.bundle.layers import Layer
from engines.inspector.compare import Comparison
from engines.inspector.figures import Figures, clean, ms, percent, shape, si
from engines.inspector.subject import Subject

_MAX_CHOICES = 200
"""Choices of one filter; what is rarer is filtered by text."""

STATUS = {"same": "same precision", "precision": "precision differs", "only A": "only in A", "only B": "only in B"}


@dataclass(frozen=True)
class Column:
    """A column; rows are sorted by its numbers, or by its words."""

    key: str
    label: str
    values: Sequence[Any]
    """A value per row; None is written as nothing."""
    write: Callable[[Any], str] = str
    hint: str = ""
    numbers: Sequence[float | None] | None = None
    """The numbers to sort by, where they are not the values or the values are words."""

    @cached_property
    def cells(self) -> list[str]:
        """The column's text, by row."""
        return ["" if value is None else self.write(value) for value in self.values]

    @cached_property
    def sorted_by(self) -> list[str]:
        """Numbers as the page's script reads them, by row; "" where there is none."""
        return [
            f"{value:.6g}" if isinstance(value, float) else str(value) if isinstance(value, int) else ""
            for value in self.numbers or self.values
        ]

    @property
    def choices(self) -> list[str]:
        """The words that a filter offers, sorted."""
        return sorted(word for word, _ in Counter(self.cells).most_common(_MAX_CHOICES))


@dataclass(frozen=True)
class Table:
    """Columns, and what the rows are of."""

    columns: list[Column]
    rows: list[tuple[int, Any]]
    """A number and a `Layer`, or a number and a `Pair`."""
    filters: tuple[str, ...]
    """The keys of columns of few words."""

    def __getitem__(self, key: str) -> Column:
        """The column of that key."""
        return next(column for column in self.columns if column.key == key)

    def some(self, *keys: str) -> list[Column]:
        """The named columns that the table has, in its order."""
        return [column for column in self.columns if column.key in keys]


def _bytes(value: float) -> str:
    return si(value, "B")


def _if_any(write: Callable[[Any], str]) -> Callable[[Any], str]:
    """Writes nothing for 0."""
    return lambda value: write(value) if value else ""


def layer_table(subject: Subject, indices: Sequence[int]) -> Table:
    """One row for each of these layers."""
    layers = [subject.report.layers[i] for i in indices]
    each = [Figures((layer,), subject.device) for layer in layers]
    columns = [
        Column("n", "#", indices, hint="position in the network"),
        Column("name", "layer", [x.name for x in layers], clean),
        Column("operator", "operator", [clean(x.operator, 40) for x in layers]),
        Column("precision", "precision", [x.precision for x in each]),
        Column("shape", "shape", layers, _shapes, "first input → first output", [_elements(x) for x in layers]),
        Column("macs", "MACs", [x.macs for x in each], _if_any(si), "multiply-accumulates at batch 1"),
        Column("weights", "weights", [x.weight_bytes for x in each], _if_any(_bytes), "bytes"),
        Column("activations", "activations", [x.activation_bytes for x in each], _bytes, "bytes read and written"),
    ]
    hint = "arithmetic intensity"
    columns.append(Column("intensity", "FLOP/byte", [x.intensity for x in each], _if_any("{:.3g}".format), hint))
    measured = bool(subject.figures.timed.layers)
    if subject.device is not None:
        hint = f"the least that {subject.device.name} allows"
        columns.append(Column("floor", "floor ms", [x.floor for x in each], ms, hint))
    if measured:
        columns.append(Column("ms", "ms", [x.milliseconds for x in each], ms, "measured, median"))
    if subject.device is not None and measured:
        reach = [x.floor / x.milliseconds if x.floor is not None and x.milliseconds else None for x in each]
        columns.append(Column("reach", "of floor", reach, percent, "floor over measured time"))
    return Table(columns, list(zip(indices, layers, strict=True)), ("precision", "operator"))


def _elements(layer: Layer) -> int:
    return min(math.prod(max(abs(n), 1) for n in layer.outputs[0].shape) if layer.outputs else 1, 2**53)


def _shapes(layer: Layer) -> str:
    sides = [
        f"{shape(side[0].shape)}{f' +{len(side) - 1}' if len(side) > 1 else ''}"
        for side in (layer.inputs, layer.outputs)
        if side
    ]
    return " → ".join(dict.fromkeys(sides))


def pair_table(comparison: Comparison, indices: Sequence[int]) -> Table:
    """One row for each of these pairs of matched layers."""
    pairs = [comparison.pairs[i] for i in indices]
    firsts = [(pair.sides[0].layers or pair.sides[1].layers)[0] for pair in pairs]
    columns = [
        Column("n", "#", indices, hint="position"),
        Column("name", "layer", [x.name for x in firsts], clean),
        Column("operator", "operator", [clean(x.operator, 40) for x in firsts]),
        Column("match", "match", [STATUS[pair.status] for pair in pairs]),
    ]
    for key, label, write, of in (
        ("precision", "precision", str, lambda side: side.precision),
        ("macs", "MACs", _if_any(si), lambda side: side.macs),
        ("bytes", "bytes", _bytes, lambda side: side.bytes if side.layers else None),
    ):
        for k, letter in enumerate("AB"):
            hint = "weights and activations" if key == "bytes" else ""
            columns.append(Column(f"{key}{letter}", f"{letter} {label}", [of(x.sides[k]) for x in pairs], write, hint))
    if label := comparison.time:
        times = [comparison.times(pair) for pair in pairs]
        ratios = [second / first if first and second is not None else None for first, second in times]
        columns += [
            Column("msA", f"A {label}", [first for first, _ in times], ms),
            Column("msB", f"B {label}", [second for _, second in times], ms),
            Column("ratio", "B / A", ratios, "{:.2f}".format, f"{label}, B over A"),
        ]
    return Table(columns, list(zip(indices, pairs, strict=True)), ("match", "operator"))
