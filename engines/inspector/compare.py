"""Two reports side by side: layers matched by name or by the ONNX nodes that were fused into them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from engines.bundle.layers import Layer
from engines.inspector.figures import Figures
from engines.inspector.subject import Subject

Indices = tuple[int, ...]
Row = tuple[str, tuple[str, ...], bool]
"""A name, what each report has of it, and whether they differ."""


@dataclass(frozen=True)
class Pair:
    """Layers that do the same work: usually one of each, more where one side fused what the other did not."""

    a: Indices
    """Indices into the first report; empty if only the second has them."""
    b: Indices
    sides: tuple[Figures, Figures]
    """The figures of both."""

    @cached_property
    def status(self) -> str:
        """The pair's status: "only A", "only B", "precision" (it differs) or "same"."""
        first, second = self.sides
        if first.layers and second.layers:
            return "same" if first.precision == second.precision else "precision"
        return "only A" if first.layers else "only B"


@dataclass(frozen=True)
class Comparison:
    """Two reports with their layers matched."""

    a: Subject
    b: Subject
    pairs: tuple[Pair, ...]

    @cached_property
    def counts(self) -> dict[str, int]:
        """The number of pairs by status."""
        counts = Counter(pair.status for pair in self.pairs)
        return {status: counts[status] for status in ("same", "precision", "only A", "only B")}

    @property
    def words(self) -> str:
        """The same in words."""
        same, differing, only_a, only_b = self.counts.values()
        return (
            f"{same + differing:,} matched by name or fused nodes, {differing:,} of them in another precision; "
            f"{only_a:,} only in A, {only_b:,} only in B."
        )

    def only(self, status: str) -> list[Pair]:
        """The pairs of one status, in order."""
        return [pair for pair in self.pairs if pair.status == status]

    def cost(self, pair: Pair) -> float:
        """The figure that pairs are ranked by, see `Subject.cost`."""
        return max(
            one.cost(layer) for one, side in zip((self.a, self.b), pair.sides, strict=True) for layer in side.layers
        )

    @cached_property
    def time(self) -> str:
        """The kind of times that may be compared: "ms" if both are measured, else "floor ms"; "" without a device."""
        if self.a.figures.timed.layers and self.b.figures.timed.layers:
            return "ms"
        return "floor ms" if self.a.device is not None else ""

    def times(self, pair: Pair) -> list[float | None]:
        """The times of both sides of that kind."""
        return [side.milliseconds if self.time == "ms" else side.floor for side in pair.sides]

    @property
    def totals(self) -> list[Row]:
        """The key figures of both, and their ratio where there is one."""
        parts = [*self.a.figures.by_precision.items(), *self.b.figures.by_precision.items()]
        labels = dict.fromkeys(label for label, figures in parts if figures.macs)
        first, second = self.a.totals(labels), self.b.totals(labels)
        rows = []
        for name in first | second:
            (x, a), (y, b) = first.get(name, (None, "none")), second.get(name, (None, "none"))
            rows.append((name, (a, b, f"{y / x:.2f}" if x and y else ""), (x, a) != (y, b)))
        return rows


def both(facts: Sequence[Mapping[str, str]]) -> list[Row]:
    """The facts of two reports side by side."""
    first, second = facts
    rows = [(name, (first.get(name, ""), second.get(name, ""))) for name in {**first, **second}]
    return [(name, (a, b), bool(a and b) and a != b) for name, (a, b) in rows]


def compare(a: Subject, b: Subject) -> Comparison:
    """Matches the layers of two reports.

    Layers belong together if one's name is the other's, or is among the nodes fused into the other ("a + b" counts
    as a and b). A name that occurs several times in a report is matched in order of occurrence.
    """
    parent: dict[tuple[str, int] | int, tuple[str, int] | int] = {}

    def root(item: tuple[str, int] | int) -> tuple[str, int] | int:
        parent.setdefault(item, item)
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    offset = len(a.report.layers)
    for start, one in ((0, a), (offset, b)):
        occurrences: Counter[str] = Counter()
        for index, layer in enumerate(one.report.layers, start):
            root(index)
            for name in _names(layer):
                key = (name, 0)
                if name == layer.name:
                    key = (name, occurrences[name])
                    occurrences[name] += 1
                parent[root(key)] = root(index)
    groups: dict[tuple[str, int] | int, tuple[list[int], list[int]]] = {}
    for index in range(offset + len(b.report.layers)):
        sides = groups.setdefault(root(index), ([], []))
        sides[index >= offset].append(index if index < offset else index - offset)

    def figures(one: Subject, indices: Indices) -> Figures:
        return Figures([one.report.layers[i] for i in indices], one.device)

    ordered = _in_order([(tuple(first), tuple(second)) for first, second in groups.values()])
    return Comparison(a, b, tuple(Pair(x, y, (figures(a, x), figures(b, y))) for x, y in ordered))


def _names(layer: Layer) -> Iterable[str]:
    fused = [part for name in layer.fused for part in (name, *name.split(" + "))]
    return dict.fromkeys(name for name in (layer.name, *fused, *layer.name.split(" + ")) if name.strip())


def _in_order(pairs: list[tuple[Indices, Indices]]) -> list[tuple[Indices, Indices]]:
    """The pairs in the first report's order; what only the second has follows the pair that it comes after there."""
    after = {b[-1]: a[0] for a, b in pairs if a and b}
    key: dict[Indices, tuple[int, int, int]] = {}
    last = -1
    for a, b in sorted((pair for pair in pairs if pair[1]), key=lambda pair: pair[1][0]):
        if a:
            last = after[b[-1]]
        else:
            key[b] = (last, 1, b[0])
    return sorted(pairs, key=lambda pair: (pair[0][0], 0, 0) if pair[0] else key[pair[1]])
