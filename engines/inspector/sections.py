"""The upper part of the report: headings, key figures, facts, certificate and the layers that stayed wider."""

from __future__ import annotations

from collections.abc import Sequence

from engines.bundle.engine_manifest import wider
from engines.inspector.figures import Figures, asked_label, clean, ms, percent, precision_label, si
from engines.inspector.html import Html, el, raw
from engines.inspector.roofline import kind
from engines.inspector.subject import Subject
from engines.inspector.tables import badge

_MAX_NAMED = 200
"""Layers that are named under one reason."""


def heading(subject: Subject) -> Html:
    """The title of a report on one graph."""
    return el(
        "header",
        el("p", "edgedit inspect", class_="over"),
        el("h1", subject.graph),
        el("p", subject.title, class_="sub"),
    )


def key_figures(figures: Figures) -> list[tuple[str, str]]:
    """The figures that sum up a report, by name."""
    report = figures.report
    requested = asked_label(report.precision)
    rows = [("MACs at batch 1", si(report.macs)), ("FP16 share of MACs", percent(figures.share("FP16")))]
    if requested not in ("FP16", "FP32"):
        rows.append((f"{requested} share of MACs", percent(figures.share(requested))))
    rows += [
        ("weights", f"{figures.weight_bytes / 1e6:,.1f} MB"),
        ("activations moved", f"{figures.activation_bytes / 1e6:,.1f} MB"),
        ("layers", f"{len(report.layers):,}"),
    ]
    if figures.total_ms is not None:
        partly = (
            "" if figures.measured == len(report.layers) else f", {figures.measured:,} of {len(report.layers):,} layers"
        )
        rows.append((f"measured{partly}", f"{ms(figures.total_ms)} ms"))
    if figures.device is not None:
        rows.append((f"sum of layer floors, {figures.device.name}", f"{ms(figures.total_floor)} ms"))
    return rows


def tiles(figures: Figures) -> Html:
    """The key figures, large."""
    return el(
        "dl", *(el("div", el("dt", name), el("dd", value)) for name, value in key_figures(figures)), class_="tiles"
    )


def share_bar(figures: Figures) -> Html:
    """MACs by precision: one bar and its legend."""
    parts, legend = [], []
    for total in figures.precisions:
        if total.macs:
            parts.append(el("span", class_=f"c {kind(total.precision)}", style=f"width:{100 * total.share:.3f}%"))
            words = f" {percent(total.share)}, {total.layers:,} layers"
            legend.append(el("span", badge(total.precision), words))
    if not parts:
        return raw("")
    return el(
        "section",
        el("h2", "MACs by precision"),
        el("div", *parts, class_="share", aria_hidden="true"),
        el("p", *legend, class_="legend"),
    )


def facts_section(subjects: Sequence[Subject]) -> Html:
    """The facts of one or two engines."""
    return _side_by_side("What it is" if len(subjects) == 1 else "What they are", [s.facts for s in subjects])


def certificate_section(subjects: Sequence[Subject]) -> Html:
    """Accuracy against the FP32 graph, where an engine's manifest has it."""
    if all(subject.engine is None for subject in subjects):
        return raw("")
    if all(subject.certificate is None for subject in subjects):
        return el("section", el("h2", "Accuracy certificate"), el("p", "Accuracy was not measured for this engine."))
    return _side_by_side("Accuracy certificate", [s.certificate or {"": "not measured"} for s in subjects])


def _side_by_side(title: str, columns: list[dict[str, str]]) -> Html:
    if len(columns) == 1:
        items = [el("div", el("dt", name), el("dd", value)) for name, value in columns[0].items()]
        return el("section", el("h2", title), el("dl", *items, class_="facts"))
    names = dict.fromkeys(name for column in columns for name in column)
    rows = []
    for name in names:
        values = [column.get(name, "") for column in columns]
        differs = "differs" if all(values) and len(set(values)) > 1 else None
        rows.append(el("tr", el("th", name, scope="row"), *(el("td", v) for v in values), class_=differs))
    return el("section", el("h2", title), _two_columns(rows, "plain"))


def _two_columns(rows: list[Html], classes: str, *more: str) -> Html:
    head = el("tr", el("td"), *(el("th", name, scope="col") for name in ("A", "B", *more)))
    return el("div", el("table", el("thead", head), el("tbody", *rows), class_=classes), class_="scroll")


def totals_section(figures: tuple[Figures, Figures]) -> Html:
    """The key figures of two reports, and their ratio where they have one."""
    a, b = figures
    numbers: list[tuple[str, float | None, float | None, str]] = [
        ("MACs at batch 1", a.report.macs, b.report.macs, "si"),
        ("weights", a.weight_bytes / 1e6, b.weight_bytes / 1e6, "MB"),
        ("activations moved", a.activation_bytes / 1e6, b.activation_bytes / 1e6, "MB"),
        ("layers", len(a.report.layers), len(b.report.layers), ""),
        ("measured layers", a.measured or None, b.measured or None, ""),
        ("measured", a.total_ms, b.total_ms, "ms"),
        (f"sum of layer floors, {a.device.name if a.device else ''}", a.total_floor, b.total_floor, "ms"),
    ]
    rows = []
    for label in dict.fromkeys(t.precision for f in figures for t in f.precisions if t.macs):
        shares = (a.share(label), b.share(label))
        words = [percent(share) for share in shares]
        rows.append(_total(f"{label} share of MACs", words[0], words[1], "", differs=words[0] != words[1]))
    for name, first, second, unit in numbers:
        if first is None and second is None:
            continue
        ratio = f"{second / first:.2f}" if first and second else ""
        rows.append(_total(name, _figure(first, unit), _figure(second, unit), ratio, differs=first != second))
    return el("section", el("h2", "Totals"), _two_columns(rows, "plain totals", "B / A"))


def _total(name: str, first: str, second: str, ratio: str, differs: bool) -> Html:
    cells = [el("td", value) for value in (first, second, ratio)]
    return el("tr", el("th", name, scope="row"), *cells, class_="differs" if differs else None)


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "none"
    return {
        "si": lambda: si(value),
        "MB": lambda: f"{value:,.1f} MB",
        "ms": lambda: f"{ms(value)} ms",
        "": lambda: f"{value:,.0f}",
    }[unit]()


def wide_section(subject: Subject, figures: Figures) -> Html:
    """The layers that compute in a wider type than asked, by reason."""
    requested, wide = asked_label(str(subject.asked)), wider(str(subject.asked))
    groups: list[tuple[str, list[tuple[str, str, int]], str]] = [
        (reason, [(x.name, x.operator, x.macs) for x in layers], precision_label(layers[0].precision))
        for reason, layers in figures.wide.items()
    ]
    if not groups and subject.proof_wide:
        named: dict[str, list[tuple[str, str, int]]] = {}
        for layer in subject.proof_wide:
            named.setdefault(clean(layer.reason, 300), []).append((layer.name, layer.operator, layer.macs))
        groups = [(reason, layers, wide) for reason, layers in named.items()]
    if not groups:
        words = (
            "The graph is FP32 throughout." if requested == "FP32" else f"None: every layer computes in {requested}."
        )
        return el("section", el("h2", f"Layers in {wide}"), el("p", words)) if requested != "FP32" else raw("")
    count = sum(len(layers) for _, layers, _ in groups)
    whole = figures.report.macs
    items = []
    for reason, layers, label in groups[:50]:
        macs = sum(m for _, _, m in layers)
        share = f", {si(macs)} MACs ({percent(macs / whole)})" if macs and whole else ""
        names = [el("li", clean(name, 120), " ", el("i", clean(op, 40))) for name, op, _ in layers[:_MAX_NAMED]]
        if len(layers) > _MAX_NAMED:
            names.append(el("li", f"and {len(layers) - _MAX_NAMED:,} more"))
        counted = f"{len(layers):,} layer{'s' if len(layers) != 1 else ''}{share}"
        summary = el("summary", badge(label), " ", el("span", reason), " ", el("i", counted))
        items.append(el("details", summary, el("ul", *names)))
    if len(groups) > 50:
        items.append(el("p", f"and {len(groups) - 50:,} more reasons"))
    return el(
        "section",
        el("h2", f"Layers in {wide}, and why"),
        el("p", f"{count:,} layer{'s are' if count != 1 else ' is'} wider than the {requested} that was asked for."),
        *items,
        class_="reasons",
    )
