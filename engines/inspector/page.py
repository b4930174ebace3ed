"""The HTML report: one file, nothing loaded from anywhere, no script but our own (a content policy enforces it)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.bundle.engine_manifest import WideLayer, wider
from engines.bundle.layers import Layer
from engines.inspector.compare import Comparison
from engines.inspector.figures import Figures, asked_label, clean, ms, percent, precision_label, shape, si
from engines.inspector.roofline import SHORT, ceilings, kind, plot, points
from engines.inspector.subject import Subject
from engines.inspector.tables import Detail, LayerTable, layer_table, least_bytes, pair_table

if TYPE_CHECKING:
    import jinja2

MAX_PAGE_BYTES = 8_000_000
_DETAILS = (Detail(160, 8, 60), Detail(120, 2, 8), Detail(48, 0, 4))


def engine_page(subject: Subject, figures: Figures, command: str = "") -> bytes:
    """The report on one graph, UTF-8.

    Args:
        subject: what is shown.
        figures: its layers on a device; the `shown` costliest of them get a row.
        command: what made it, for the footer.
    """

    def build(detail: Detail, shown: int) -> bytes:
        fitted = replace(figures, shown=min(figures.shown, shown))
        rows, count = {i: f"l{i}" for i in fitted.selection}, len(fitted.report.layers)
        return _render(
            (subject,),
            (fitted,),
            (rows,),
            layer_table(fitted),
            detail=detail,
            command=command,
            words=f"{count:,} layers.",
            cut=count - len(rows),
            asked=asked_label(str(subject.asked)),
            wider=wider(str(subject.asked)),
            wide=_wide(subject, fitted),
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
    sides = [(comparison.side_a(pair), comparison.side_b(pair)) for pair in comparison.pairs]
    cost = [max([*map(a.cost, x.layers), *map(b.cost, y.layers)]) for x, y in sides]
    counts = comparison.counts
    words = (
        f"{counts['same'] + counts['precision']:,} matched by name or fused nodes, {counts['precision']:,} of them "
        f"in another precision; {counts['only A']:,} only in A, {counts['only B']:,} only in B."
    )

    def build(detail: Detail, shown: int) -> bytes:
        selected = sorted(sorted(range(len(sides)), key=lambda i: -cost[i])[:shown])
        pairs = [(f"l{n}", comparison.pairs[n]) for n in selected]
        rows_a = {i: row for row, pair in pairs for i in pair.a}
        rows_b = {i: row for row, pair in pairs for i in pair.b}
        return _render(
            subjects,
            figures,
            (rows_a, rows_b),
            pair_table(comparison, selected, a, b),
            detail=detail,
            command=command,
            words=words,
            cut=len(sides) - len(selected),
            totals=_totals(a, b),
        )

    return _fit(build, a.shown, lambda _: 0)


def _fit(build: Callable[[Detail, int], bytes], shown: int, least: Callable[[Detail], int]) -> bytes:
    """The page with as much detail, and then as many rows, as there is room for.

    Args:
        build: makes a page.
        shown: rows to begin with.
        least: a lower bound of its bytes, to spare making one that cannot fit.
    """
    fitting = [detail for detail in _DETAILS if least(detail) <= MAX_PAGE_BYTES]
    page = b""
    for detail in fitting or [_DETAILS[-1]]:
        page = build(detail, shown)
        if len(page) <= MAX_PAGE_BYTES:
            return page
    while len(page) > MAX_PAGE_BYTES:
        shown //= 2
        page = build(_DETAILS[-1], shown)
    return page


def _render(
    subjects: Sequence[Subject],
    figures: Sequence[Figures],
    targets: Sequence[dict[int, str]],
    table: LayerTable,
    **more: Any,
) -> bytes:
    """A page of one report or of two.

    Args:
        subjects: whose they are.
        figures: their layers.
        targets: for each, the row's identifier by the index of a layer.
        table: those rows.
        more: what else the template asks for.
    """
    marks = [m for n, (one, rows) in enumerate(zip(figures, targets, strict=True)) for m in points(one, rows, n > 0)]
    roofs, unknown = ceilings(figures)
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _template().render(
        subjects=subjects,
        figures=figures,
        targets=targets,
        table=table,
        marks=marks,
        unknown=unknown,
        plots={
            "large": plot(figures[0].device, roofs, marks, 1040, 460),
            "small": plot(figures[0].device, roofs, marks, 350, 360),
        },
        precisions=list(dict.fromkeys(total.precision for one in figures for total in one.precisions)),
        certificates=[subject.certificate or {"": "not measured"} for subject in subjects],
        policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'",
        style=_asset("page.css"),
        script=script,
        **more,
    )
    return page.encode()


@cache
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    # Not at the top: the terminal's tables do without.
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters |= {
        "clean": clean,
        "count": "{:,}".format,
        "floor": lambda layer, figures: figures.floor(layer),
        "kind": kind,
        "label": precision_label,
        "ms": ms,
        "names": lambda side, limit: [clean(layer.name, limit) or "(no name)" for layer in side.layers],
        "percent": percent,
        "shape": shape,
        "short": lambda label: SHORT.get(label, "·"),
        "si": si,
        "tenth": "{:.1f}".format,
    }
    return environment.from_string(_asset("page.html"))


def _wide(subject: Subject, figures: Figures) -> list[tuple[str, list[Layer] | list[WideLayer], str]]:
    """The layers that compute in a wider type than asked: a reason, those that it holds for, and their precision."""
    if figures.wide:
        return [(reason, layers, precision_label(layers[0].precision)) for reason, layers in figures.wide.items()]
    named: dict[str, list[WideLayer]] = {}
    for layer in subject.proof_wide:
        named.setdefault(clean(layer.reason, 300), []).append(layer)
    return [(reason, layers, wider(str(subject.asked))) for reason, layers in named.items()]


def _totals(a: Figures, b: Figures) -> list[tuple[str, str, str, str, bool]]:
    """Key figures of two reports: their name, that of each, their ratio where there is one, whether they differ."""

    def megabytes(size: float) -> str:
        return f"{size / 1e6:,.1f} MB"

    def milliseconds(time: float) -> str:
        return f"{ms(time)} ms"

    rows = []
    for label in dict.fromkeys(t.precision for f in (a, b) for t in f.precisions if t.macs):
        one, other = percent(a.share(label)), percent(b.share(label))
        rows.append((f"{label} share of MACs", one, other, "", one != other))
    numbers: list[tuple[str, float | None, float | None, Callable[[float], str]]] = [
        ("MACs at batch 1", a.report.macs, b.report.macs, si),
        ("weights", a.weight_bytes, b.weight_bytes, megabytes),
        ("activations moved", a.activation_bytes, b.activation_bytes, megabytes),
        ("layers", len(a.report.layers), len(b.report.layers), "{:,}".format),
        ("measured layers", a.measured or None, b.measured or None, "{:,}".format),
        ("measured", a.total_ms, b.total_ms, milliseconds),
        (f"sum of layer floors, {a.device.name if a.device else ''}", a.total_floor, b.total_floor, milliseconds),
    ]
    for name, first, second, write in numbers:
        if first is not None or second is not None:
            written = ["none" if value is None else write(value) for value in (first, second)]
            ratio = f"{second / first:.2f}" if first and second else ""
            rows.append((name, *written, ratio, first != second))
    return rows
