"""The HTML report: one file, nothing loaded from anywhere, no script but our own (a content policy enforces it)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from engines.inspector.compare import Comparison
from engines.inspector.figures import Figures, clean, ms, precision_label, si
from engines.inspector.html import Html, el, raw
from engines.inspector.roofline import Point, kind, points, roofline
from engines.inspector.sections import (
    certificate_section,
    facts_section,
    heading,
    share_bar,
    tiles,
    totals_section,
    wide_section,
)
from engines.inspector.subject import Subject
from engines.inspector.tables import Detail, LayerTable, layer_table, least_bytes, pair_table

MAX_PAGE_BYTES = 8_000_000
_MAX_POINTS = 1000
_DETAILS = (Detail(160, 8, 60), Detail(120, 2, 8), Detail(48, 0, 4))
_SHORT = {"FP16": "16", "FP32": "32", "BF16": "b16", "INT8": "i8", "FP8": "f8"}


def engine_page(subject: Subject, figures: Figures, command: str = "") -> bytes:
    """The report on one graph, UTF-8.

    Args:
        subject: what is shown.
        figures: its layers on a device; the `shown` costliest of them get a row.
        command: what made it, for the footer.
    """

    def build(detail: Detail, shown: int) -> Html:
        fitted = replace(figures, shown=min(figures.shown, shown))
        table = layer_table(fitted, detail)
        rows = {i: f"l{i}" for i in fitted.selection}
        layers = fitted.report.layers
        cut = len(layers) - len(rows)
        note = f" {cut:,} cheaper layers are left out here and counted in the totals." if cut else ""
        return _document(
            f"{subject.graph}: {subject.title}",
            heading(subject),
            tiles(fitted),
            share_bar(fitted),
            facts_section([subject]),
            certificate_section([subject]),
            wide_section(subject, fitted),
            _map_section([("", fitted, rows)]),
            _roofline_section([(fitted, points(fitted, _largest(fitted, rows)))]),
            el("section", el("h2", "Layers"), el("p", f"{len(layers):,} layers.{note}"), table.markup(), class_="wide"),
            table=table,
            command=command,
        )

    return _fit(build, figures.shown, lambda detail: least_bytes(figures, detail))


def comparison_page(
    subjects: tuple[Subject, Subject],
    figures: tuple[Figures, Figures],
    comparison: Comparison,
    command: str = "",
) -> bytes:
    """The report on two graphs side by side, UTF-8."""
    a, b = figures

    def build(detail: Detail, shown: int) -> Html:
        cost = {
            pair: max(
                [a.cost(x) for x in comparison.side_a(pair).layers]
                + [b.cost(x) for x in comparison.side_b(pair).layers]
            )
            for pair in comparison.pairs
        }
        numbered = list(enumerate(comparison.pairs))
        selected = sorted(sorted(numbered, key=lambda item: -cost[item[1]])[:shown])
        cut = len(numbered) - len(selected)
        table = pair_table(comparison, selected, a, b, detail)
        rows_a = {i: f"l{index}" for index, pair in selected for i in pair.a}
        rows_b = {i: f"l{index}" for index, pair in selected for i in pair.b}
        marks = [points(a, _largest(a, rows_a)), points(b, _largest(b, rows_b), second=True)]
        counts = comparison.counts
        words = (
            f"{counts['same'] + counts['precision']:,} matched by name or fused nodes, {counts['precision']:,} of them "
            f"in another precision; {counts['only A']:,} only in A, {counts['only B']:,} only in B."
        )
        note = f" {cut:,} cheaper rows are left out here and counted in the totals." if cut else ""
        return _document(
            f"{subjects[0].graph}: {subjects[0].title} against {subjects[1].title}",
            el(
                "header",
                el("p", "edgedit inspect --compare", class_="over"),
                el("h1", "Two engines side by side"),
                *(
                    el("p", el("b", f"{k} "), f"{s.graph}, {s.title}", class_="sub")
                    for k, s in zip("AB", subjects, strict=True)
                ),
            ),
            totals_section(figures),
            facts_section(subjects),
            certificate_section(subjects),
            _map_section([("A", a, rows_a), ("B", b, rows_b)]),
            _roofline_section(list(zip(figures, marks, strict=True))),
            el("section", el("h2", "Layers, matched"), el("p", words + note), table.markup(), class_="wide"),
            table=table,
            command=command,
        )

    return _fit(build, a.shown, lambda _: 0)


def _fit(build: Callable[[Detail, int], Html], shown: int, least: Callable[[Detail], int]) -> bytes:
    """The page with as much detail, and then as many rows, as there is room for.

    Args:
        build: makes a page.
        shown: rows to begin with.
        least: a lower bound of its bytes, to spare making one that cannot fit.
    """
    fitting = [detail for detail in _DETAILS if least(detail) <= MAX_PAGE_BYTES]
    page = b""
    for detail in fitting or [_DETAILS[-1]]:
        page = build(detail, shown).encode()
        if len(page) <= MAX_PAGE_BYTES:
            return page
    while len(page) > MAX_PAGE_BYTES:
        shown //= 2
        page = build(_DETAILS[-1], shown).encode()
    return page


def _largest(figures: Figures, rows: dict[int, str]) -> dict[int, str]:
    """The rows of the layers with the most MACs: what a plot can still show."""
    layers = figures.report.layers
    selected = sorted((i for i in rows if layers[i].macs), key=lambda i: -layers[i].macs)[:_MAX_POINTS]
    return {i: rows[i] for i in selected}


def _map_section(maps: Sequence[tuple[str, Figures, dict[int, str]]]) -> Html:
    precisions = dict.fromkeys(t.precision for _, figures, _ in maps for t in figures.precisions)
    legend = [
        el("span", el("span", _cell_text(label), class_=f"b {kind(label)}"), f" {label}")
        for label in list(precisions)[:12]
    ]
    strips = []
    for name, figures, rows in maps:
        layers, whole = figures.report.layers, figures.report.macs or 1
        cells = []
        for i, target in rows.items():
            label = precision_label(layers[i].precision)
            share = layers[i].macs / whole
            cells.append(
                el(
                    "a",
                    _cell_text(label),
                    class_=f"c {kind(label)}",
                    href=f"#{target}",
                    tabindex="-1",
                    style=f"--s:{share:.5f}" if share >= 1e-5 else None,
                )
            )
        hint = "Precision map" + (f" of {name}" if name else "")
        if name:
            strips.append(el("h3", name))
        strips.append(
            el("div", *cells, class_="map", role="group", aria_label=f"{hint}, one cell per layer; arrow keys move")
        )
    widths = el(
        "fieldset",
        el("legend", "Widths"),
        el("label", el("input", type="radio", name="map", value="macs", checked=True), " by MACs"),
        el("label", el("input", type="radio", name="map", value="equal"), " equal"),
        class_="switch",
    )
    return el(
        "section",
        el("h2", "Precision map"),
        el("p", "One cell per layer, in network order; choose one to see its row."),
        el("div", widths, el("p", *legend, class_="legend"), class_="bar"),
        *strips,
        el("p", raw("&nbsp;"), class_="status", role="status", data_for="map"),
        id="precision-map",
    )


def _cell_text(label: str) -> str:
    return _SHORT.get(label, "·")


def _roofline_section(series: list[tuple[Figures, list[Point]]]) -> Html:
    first = series[0][0]
    marks = [mark for _, points in series for mark in points]
    heading_ = el("h2", "Roofline")
    if not marks:
        why = (
            "no layer has arithmetic"
            if not any(figures.report.macs for figures, _ in series)
            else "no time was measured and no device is named: add --gpu, or --peak-tflops and --bandwidth-gbs"
        )
        return el("section", heading_, el("p", f"There is nothing to plot: {why}."), id="roofline")
    measured = sum(mark.measured for mark in marks)
    if measured == len(marks):
        how = "Filled: what each layer attained in the measured time."
    elif measured:
        how = "Filled: attained in the measured time. Hollow: not measured, drawn at the floor of the device."
    else:
        how = "Nothing was measured: hollow points lie at the floor, the most that the device allows."
    device = "No device is named, hence no ceilings"
    if first.device is not None:
        types = dict.fromkeys(layer.precision for f, _ in series for layer in f.report.layers if layer.macs)
        unknown = [precision_label(dtype) for dtype in types if first.device.tflops(dtype) is None]
        known = f" (no arithmetic ceiling is known for {', '.join(unknown[:4])})" if unknown else ""
        device = f"Ceilings of {first.device.name}{known}"
    shapes = " Circles are A, diamonds are B." if len(series) > 1 else ""
    title = f"Roofline: {len(marks)} layers by arithmetic intensity and FLOP/s"
    # The reports of one page share the device; ceilings are drawn for the types of both.
    both = replace(
        first, report=first.report.model_copy(update={"layers": [x for f, _ in series for x in f.report.layers]})
    )
    return el(
        "section",
        heading_,
        el("p", f"{device}; area by MACs. {how}{shapes}"),
        el("div", roofline(both, marks, 1040, 460, title), class_="plot large"),
        el("div", roofline(both, marks, 350, 360, title), class_="plot small"),
        el("p", raw("&nbsp;"), class_="status", role="status", data_for="plot"),
        _idle(series),
        id="roofline",
    )


def _idle(series: list[tuple[Figures, list[Point]]]) -> Html:
    """A note on what the plot cannot show: layers without arithmetic have no intensity."""
    parts = []
    for letter, (figures, _) in zip("AB", series, strict=False):
        idle = [layer for layer in figures.report.layers if not layer.macs]
        if not idle:
            continue
        moved = sum(layer.activation_bytes + layer.weight_bytes for layer in idle)
        floors = [f for f in map(figures.floor, idle) if f is not None]
        floor = f", {ms(sum(floors))} ms at the floor" if floors else ""
        graph = f" of {letter}" if len(series) > 1 else ""
        parts.append(f"Not in the plot: {len(idle):,} layers{graph} without MACs, which move {si(moved, 'B')}{floor}.")
    return el("p", " ".join(parts), class_="note")


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _document(title: str, *body: Html, table: LayerTable, command: str) -> Html:
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", clean(title)),
        el("link", rel="icon", href="data:,"),
        el("style", raw(_asset("page.css")), raw(_labels(c.label for c in table.columns))),
    )
    footer = el("footer", el("p", clean(command, 500))) if command else raw("")
    content = el("body", el("main", *body), footer, table.data(), el("script", raw(script)))
    return raw(f"<!doctype html>\n{el('html', head, content, lang='en')}\n")


def _labels(labels: Iterable[str]) -> str:
    """Style rules for narrow screens: a row is a card, and a figure has its column's name (ours, not from a file)."""
    rules = [f'td:nth-child({n})::before{{content:"{label}"}}' for n, label in enumerate(labels, 1)]
    return "@media (max-width:760px){" + "".join(f"#layers {rule}" for rule in rules) + "}"
