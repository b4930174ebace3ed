"""The sortable tables of the report: one row per layer, or one per pair of matched layers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engines.bundle.layers import Layer, LayerTensor
from engines.inspector.compare import Comparison, Pair, Side
from engines.inspector.figures import Figures, clean, ms, percent, precision_label, shape, si
from engines.inspector.html import Html, el, join, raw
from engines.inspector.roofline import kind

_MAX_CHOICES = 200
"""Choices of one filter; what is rarer is filtered by text."""


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
    hint: str = ""
    values: Sequence[float | None] | None = None


@dataclass(frozen=True)
class LayerTable:
    """The markup of a table, and what its script needs."""

    columns: list[Column]
    rows: list[Html]
    choices: dict[str, list[str]]
    """A label per row, by the key of a filter."""
    macs: list[int]
    caption: str = field(kw_only=True)
    kind: str = field(kw_only=True)
    """CSS class: "single" or "pairs"."""

    def markup(self) -> Html:
        """The filters and the table."""
        head = [
            el("th", el("button", c.label, type="button"), scope="col", data_key=c.key, title=c.hint or None)
            for c in self.columns
        ]
        table = el(
            "table",
            el("caption", self.caption, class_="sr"),
            el("thead", el("tr", *head)),
            el("tbody", *self.rows),
            id="layers",
            class_=self.kind,
        )
        return join(
            [_controls(self), el("div", table, class_="scroll", tabindex="0", role="region", aria_label="Layers")]
        )

    def data(self) -> Html:
        """Numbers and choices for the script, as a JSON block that no text can end."""
        facets = {}
        for key, labels in self.choices.items():
            there = _choices(labels)
            index = {label: i for i, label in enumerate(there)}
            facets[key] = {"labels": there, "of": [index.get(label, -1) for label in labels]}
        values = {c.key: [_short(v) for v in c.values] for c in self.columns if c.values is not None}
        content = json.dumps({"values": values, "facets": facets, "macs": self.macs}, separators=(",", ":"))
        for character in "<>&\u2028\u2029":
            content = content.replace(character, f"\\u{ord(character):04x}")
        return el("script", raw(content), type="application/json", id="data")


def _short(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.6g}")


def _choices(labels: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    return sorted(sorted(counts, key=lambda label: -counts[label])[:_MAX_CHOICES])


def _controls(table: LayerTable) -> Html:
    fields = [
        el(
            "label",
            el("span", "Filter"),
            el("input", type="search", id="filter", placeholder="name, operator, shape …"),
        )
    ]
    for key, labels in table.choices.items():
        options = [el("option", "all", value=""), *(el("option", label, value=label) for label in _choices(labels))]
        fields.append(el("label", el("span", key.capitalize()), el("select", *options, data_facet=key)))
    order = [el("option", c.label, value=c.key) for c in table.columns]
    fields.append(el("label", el("span", "Sort by"), el("select", *order, id="sort")))
    fields.append(el("button", "↑", type="button", id="direction", aria_label="Reverse the order"))
    fields.append(el("button", "Reset", type="button", id="reset"))
    return el("form", *fields, el("output", id="count"), class_="controls", role="search")


def least_bytes(figures: Figures, detail: Detail) -> int:
    """A lower bound of what `layer_table` takes, found without making it: a report may hold far more than fits."""
    total = 0
    for index in figures.selection:
        layer = figures.report.layers[index]
        texts = [layer.name, *layer.fused[: detail.fused]]
        for tensors in (layer.inputs, layer.outputs):
            texts += [tensor.name for tensor in tensors[: detail.tensors]]
        total += sum(min(len(words), detail.name) for words in texts)
    return total


def badge(label: str) -> Html:
    """A precision in its colour and texture; several of a matched pair in that of the first."""
    return el("span", label, class_=f"b {kind(label.split(' + ')[0])}") if label else raw("")


def layer_table(figures: Figures, detail: Detail) -> LayerTable:
    """One row per layer that the page shows."""
    layers = [figures.report.layers[i] for i in figures.selection]
    floors = [figures.floor(layer) for layer in layers]
    columns = [
        Column("n", "#", "position in the network", figures.selection),
        Column("name", "layer"),
        Column("operator", "operator"),
        Column("precision", "precision"),
        Column("shape", "shape", "first input → first output", [_elements(layer) for layer in layers]),
        Column("macs", "MACs", "multiply-accumulates at batch 1", [layer.macs for layer in layers]),
        Column("weights", "weights", "bytes", [layer.weight_bytes for layer in layers]),
        Column("activations", "activations", "bytes read and written", [layer.activation_bytes for layer in layers]),
        Column("intensity", "FLOP/byte", "arithmetic intensity", [figures.intensity(layer) for layer in layers]),
    ]
    if figures.device is not None:
        columns.append(Column("floor", "floor ms", f"the least that {figures.device.name} allows", floors))
    if figures.measured:
        columns.append(Column("ms", "ms", "measured, median", [layer.milliseconds for layer in layers]))
    if figures.device is not None and figures.measured:
        columns.append(
            Column(
                "reach", "of floor", "floor over measured time", [_reach(*p) for p in zip(layers, floors, strict=True)]
            )
        )
    rows = [
        _layer_row(figures, index, layer, floor, detail)
        for index, layer, floor in zip(figures.selection, layers, floors, strict=True)
    ]
    choices = {
        "precision": [precision_label(layer.precision) for layer in layers],
        "operator": [clean(layer.operator, 40) for layer in layers],
    }
    return LayerTable(columns, rows, choices, [layer.macs for layer in layers], caption="Layers", kind="single")


def _reach(layer: Layer, floor: float | None) -> float | None:
    return floor / layer.milliseconds if floor is not None and layer.milliseconds else None


def _elements(layer: Layer) -> int:
    size = 1
    for extent in layer.outputs[0].shape if layer.outputs else []:
        size *= max(abs(extent), 1)
    return min(size, 2**53)


def _layer_row(figures: Figures, index: int, layer: Layer, floor: float | None, detail: Detail) -> Html:
    share = layer.macs / figures.report.macs if layer.macs else 0.0
    cells = [
        el("td", index),
        el("th", _name(layer, detail), scope="row"),
        el("td", clean(layer.operator, 40)),
        el("td", badge(precision_label(layer.precision))),
        el("td", _shapes(layer)),
        el("td", si(layer.macs) if layer.macs else "", style=f"--s:{share:.4f}" if share >= 0.0005 else None),
        el("td", si(layer.weight_bytes, "B") if layer.weight_bytes else ""),
        el("td", si(layer.activation_bytes, "B")),
        el("td", f"{figures.intensity(layer):.3g}" if layer.macs else ""),
    ]
    if figures.device is not None:
        cells.append(el("td", ms(floor)))
    if figures.measured:
        cells.append(el("td", ms(layer.milliseconds)))
    if figures.device is not None and figures.measured:
        reach = _reach(layer, floor)
        cells.append(el("td", "" if reach is None else percent(reach)))
    return el("tr", *cells, id=f"l{index}", tabindex="-1")


def _name(layer: Layer, detail: Detail) -> Html:
    name = clean(layer.name, detail.name) or "(no name)"
    lines: list[Html] = []
    if layer.reason is not None:
        lines.append(el("p", el("b", "why this precision "), clean(layer.reason, 2 * detail.name)))
    for label, tensors in (("in ", layer.inputs), ("out ", layer.outputs)):
        lines += [el("p", el("b", label), _tensor(t, detail)) for t in tensors[: detail.tensors]]
        if 0 < detail.tensors < len(tensors):
            lines.append(el("p", f"and {len(tensors) - detail.tensors} more"))
    if layer.fused:
        nodes = ", ".join(clean(node, detail.name) for node in layer.fused[: detail.fused])
        more = f", and {len(layer.fused) - detail.fused} more" if len(layer.fused) > detail.fused else ""
        lines.append(el("p", el("b", "ONNX nodes "), nodes + more))
    fused = [" ", el("i", f"{len(layer.fused)} fused")] if len(layer.fused) > 1 else []
    if not lines:
        return el("span", name)
    return el("details", el("summary", el("span", name), *fused), *lines)


def _tensor(tensor: LayerTensor, detail: Detail) -> str:
    return f"{clean(tensor.name, detail.name)} {clean(tensor.dtype, 16)} {shape(tensor.shape)}"


def _shapes(layer: Layer) -> str:
    sides = [
        f"{shape(side[0].shape)}{f' +{len(side) - 1}' if len(side) > 1 else ''}"
        for side in (layer.inputs, layer.outputs)
        if side
    ]
    return " → ".join(dict.fromkeys(sides))


STATUS = {"same": "same precision", "precision": "precision differs", "only A": "only in A", "only B": "only in B"}


def pair_table(
    comparison: Comparison, pairs: Sequence[tuple[int, Pair]], a: Figures, b: Figures, detail: Detail
) -> LayerTable:
    """One row per pair of matched layers; times are measured where both reports are, else floors."""
    sides = [(comparison.side_a(pair), comparison.side_b(pair)) for _, pair in pairs]
    times = [pair_times(x, y, a, b) for x, y in sides]
    label = time_label(a, b)
    statuses = [STATUS[comparison.status(pair)] for _, pair in pairs]
    columns = [
        Column("n", "#", "position", [i for i, _ in pairs]),
        Column("name", "layer"),
        Column("operator", "operator"),
        Column("match", "match"),
        Column("pa", "A precision"),
        Column("pb", "B precision"),
        Column("macs", "A MACs", "", [x.macs for x, _ in sides]),
        Column("macsb", "B MACs", "", [y.macs for _, y in sides]),
        Column("bytes", "A bytes", "weights and activations", [x.bytes for x, _ in sides]),
        Column("bytesb", "B bytes", "weights and activations", [y.bytes for _, y in sides]),
    ]
    if label:
        columns += [
            Column("ms", f"A {label}", "", [t[0] for t in times]),
            Column("msb", f"B {label}", "", [t[1] for t in times]),
            Column("ratio", "B / A", f"{label}, B over A", [_ratio(t) for t in times]),
        ]
    rows = []
    for (index, _), (x, y), time, status in zip(pairs, sides, times, statuses, strict=True):
        one, both = (x.layers or y.layers)[0], bool(x.layers and y.layers)
        cells = [
            el("td", index),
            el("th", _pair_name(x, y, detail), scope="row"),
            el("td", clean(one.operator, 40)),
            el("td", el("span", status, class_="s same" if status == STATUS["same"] else "s")),
            *(el("td", badge(side.precision)) for side in (x, y)),
            *(el("td", si(side.macs) if side.macs else "") for side in (x, y)),
            *(el("td", si(side.bytes, "B") if side.layers else "") for side in (x, y)),
        ]
        if label:
            ratio = _ratio(time)
            cells += [*(el("td", ms(t)) for t in time), el("td", f"{ratio:.2f}" if both and ratio is not None else "")]
        rows.append(el("tr", *cells, id=f"l{index}", tabindex="-1"))
    choices = {"match": statuses, "operator": [clean((x.layers or y.layers)[0].operator, 40) for x, y in sides]}
    macs = [x.macs or y.macs for x, y in sides]
    return LayerTable(columns, rows, choices, macs, caption="Layers of both reports, matched", kind="pairs")


def time_label(a: Figures, b: Figures) -> str:
    """The kind of the times of two reports: "ms" if both are measured, else "floor ms"; empty without a device."""
    return "ms" if a.measured and b.measured else "floor ms" if a.device is not None else ""


def pair_times(x: Side, y: Side, a: Figures, b: Figures) -> tuple[float | None, float | None]:
    """Times of both sides of a pair that may be compared: see `time_label`."""
    if a.measured and b.measured:
        return x.milliseconds, y.milliseconds
    return x.floor(a), y.floor(b)


def _ratio(times: tuple[float | None, float | None]) -> float | None:
    first, second = times
    return second / first if first and second is not None else None


def _pair_name(x: Side, y: Side, detail: Detail) -> Html:
    first, second = ([clean(layer.name, detail.name) or "(no name)" for layer in side.layers] for side in (x, y))
    if first == second or not (first and second):
        names = first or second
        return el("span", _some(names, detail))
    return el("span", el("b", "A "), _some(first, detail), raw("<br>"), el("b", "B "), _some(second, detail))


def _some(names: list[str], detail: Detail) -> str:
    shown = names[: max(detail.fused // 20, 1)]
    return ", ".join(shown) + (f", and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
