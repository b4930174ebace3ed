"""Two reports side by side: layers matched by name or by the ONNX nodes that were fused into them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from engines.bundle.layers import Layer, LayerReport
from engines.inspector.figures import Figures, precision_label


@dataclass(frozen=True)
class Pair:
    """Layers that do the same work: usually one of each, more where one side fused what the other did not."""

    a: tuple[int, ...]
    """Indices into the first report; empty if only the second has them."""
    b: tuple[int, ...]


@dataclass(frozen=True)
class Side:
    """The layers that one report has in a pair, summed."""

    layers: tuple[Layer, ...]

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def bytes(self) -> int:
        return sum(layer.weight_bytes + layer.activation_bytes for layer in self.layers)

    @property
    def milliseconds(self) -> float | None:
        """The sum of the measured times; None unless all were measured."""
        times = [layer.milliseconds for layer in self.layers]
        return sum(t for t in times if t is not None) if times and None not in times else None

    @property
    def precision(self) -> str:
        """Label of what it computes with; several, that of the most MACs first, where its layers differ.

        Layers without arithmetic count only if there is no other: a cast beside a convolution changes nothing.
        """
        sums: Counter[str] = Counter()
        some = [layer for layer in self.layers if layer.macs] or self.layers
        for layer in some:
            sums[precision_label(layer.precision)] += layer.macs
        return " + ".join(name for name, _ in sums.most_common(4))

    def floor(self, figures: Figures) -> float | None:
        """The sum of the layers' floors; None without a device."""
        floors = [figures.floor(layer) for layer in self.layers]
        return sum(f for f in floors if f is not None) if floors and None not in floors else None


@dataclass(frozen=True)
class Comparison:
    """Two reports with their layers matched."""

    a: LayerReport
    b: LayerReport
    pairs: tuple[Pair, ...]

    def side_a(self, pair: Pair) -> Side:
        return Side(tuple(self.a.layers[i] for i in pair.a))

    def side_b(self, pair: Pair) -> Side:
        return Side(tuple(self.b.layers[i] for i in pair.b))

    def status(self, pair: Pair) -> str:
        """ "only A", "only B", "precision" (it differs) or "same"."""
        if not pair.b:
            return "only A"
        if not pair.a:
            return "only B"
        return "same" if self.side_a(pair).precision == self.side_b(pair).precision else "precision"

    @cached_property
    def counts(self) -> dict[str, int]:
        """Pairs by status."""
        counts = Counter(map(self.status, self.pairs))
        return {status: counts[status] for status in ("same", "precision", "only A", "only B")}

    def only(self, status: str) -> list[Pair]:
        """The pairs of one status, in order."""
        return [pair for pair in self.pairs if self.status(pair) == status]


def compare(a: LayerReport, b: LayerReport) -> Comparison:
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

    offset = len(a.layers)
    for start, report in ((0, a), (offset, b)):
        occurrences: Counter[str] = Counter()
        for index, layer in enumerate(report.layers, start):
            root(index)
            for name in _names(layer):
                key = (name, 0)
                if name == layer.name:
                    key = (name, occurrences[name])
                    occurrences[name] += 1
                parent[root(key)] = root(index)
    groups: dict[tuple[str, int] | int, tuple[list[int], list[int]]] = {}
    for index in range(offset + len(b.layers)):
        sides = groups.setdefault(root(index), ([], []))
        sides[index >= offset].append(index if index < offset else index - offset)
    pairs = [Pair(tuple(first), tuple(second)) for first, second in groups.values()]
    return Comparison(a, b, tuple(_in_order(pairs)))


def _names(layer: Layer) -> Iterable[str]:
    fused = [part for name in layer.fused for part in (name, *name.split(" + "))]
    return dict.fromkeys(name for name in (layer.name, *fused, *layer.name.split(" + ")) if name.strip())


def _in_order(pairs: list[Pair]) -> list[Pair]:
    """The pairs in the first report's order; what only the second has follows the pair that it comes after there."""
    after = {pair.b[-1]: pair.a[0] for pair in pairs if pair.a and pair.b}
    key: dict[Pair, tuple[int, int, int]] = {}
    last = -1
    for pair in sorted((p for p in pairs if p.b), key=lambda p: p.b[0]):
        if pair.a:
            last = after[pair.b[-1]]
        else:
            key[pair] = (last, 1, pair.b[0])
    return sorted(pairs, key=lambda p: key.get(p) or (p.a[0], 0, 0))


def time_label(a: Figures, b: Figures) -> str:
    """The kind of the times of two reports: "ms" if both are measured, else "floor ms"; empty without a device."""
    return "ms" if a.measured and b.measured else "floor ms" if a.device is not None else ""


def pair_times(x: Side, y: Side, a: Figures, b: Figures) -> tuple[float | None, float | None]:
    """Times of both sides of a pair that may be compared: see `time_label`."""
    if a.measured and b.measured:
        return x.milliseconds, y.milliseconds
    return x.floor(a), y.floor(b)
