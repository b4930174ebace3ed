"""The HTML report: one file, nothing loaded from anywhere, no script but our own (a content policy enforces it)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.inspector.compare import Comparison, both
from engines.inspector.figures import clean, ms, percent, precision_label, shape, si
from engines.inspector.roofline import kind, plot
from engines.inspector.subject import Subject
from engines.inspector.tables import Table, layer_table, pair_table

if TYPE_CHECKING:
    import jinja2

MAX_PAGE_BYTES = 8_000_000
MAX_ROWS = 5000
_SHORT = {"FP16": "16", "FP32": "32", "BF16": "b16", "INT8": "i8", "FP8": "f8"}
"""Labels for small cells."""


@dataclass(frozen=True)
class Detail:
    """The room that a page has for names."""

    name: int
    tensors: int
    fused: int


_DETAILS = (Detail(160, 8, 60), Detail(120, 2, 8), Detail(48, 0, 4))

Content = tuple[Table, Sequence[Mapping[int, int]]]
"""A table, and for each report the number of its row by the index of a layer."""


def engine_page(subject: Subject, command: str = "", rows: int = MAX_ROWS) -> bytes:
    """The report on one graph, UTF-8.

    Args:
        command: what made it, for the footer.
        rows: so many of the costliest layers get a row, or fewer if the page would be larger than `MAX_PAGE_BYTES`.
    """

    def content(count: int) -> Content:
        shown = sorted(subject.costliest(count))
        return layer_table(subject, shown), [{i: i for i in shown}]

    layers = len(subject.report.layers)
    return _page(content, rows, layers, subjects=[subject], command=command, words=f"{layers:,} layers.")


def comparison_page(comparison: Comparison, command: str = "", rows: int = MAX_ROWS) -> bytes:
    """The report on two graphs side by side, UTF-8; the other arguments are those of `engine_page`."""
    pairs = comparison.pairs
    by_cost = sorted(range(len(pairs)), key=lambda i: -comparison.cost(pairs[i]))

    def content(count: int) -> Content:
        shown = sorted(by_cost[:count])
        places = [{i: n for n in shown for i in pairs[n].a}, {i: n for n in shown for i in pairs[n].b}]
        return pair_table(comparison, shown), places

    subjects = [comparison.a, comparison.b]
    more = {"command": command, "words": comparison.words, "totals": comparison.totals}
    return _page(content, rows, len(pairs), subjects=subjects, **more)


def _page(content: Callable[[int], Content], rows: int, of: int, *, subjects: Sequence[Subject], **more: Any) -> bytes:
    """The page with as much detail, and then as many rows, as there is room for.

    Args:
        content: makes the table of so many rows at most.
        of: rows there would be without a bound.
        more: what else the template asks for.
    """
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    more |= {
        "subjects": subjects,
        "certificates": [subject.certificate or {"": "not measured"} for subject in subjects],
        "policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'",
        "style": _asset("page.css"),
        "script": script,
    }
    while True:
        table, places = content(rows)
        more |= {"table": table, "places": places, "cut": of - len(table.rows), "plot": plot(subjects, places)}
        for detail in _DETAILS:
            if (page := _render(detail=detail, **more)) is not None:
                return page
        rows = len(table.rows) // 2


def _render(**values: Any) -> bytes | None:
    """The page; None as soon as it is too large."""
    parts, size = [], 0
    for text in _template().generate(**values):
        parts.append(text.encode())
        size += len(parts[-1])
        if size > MAX_PAGE_BYTES:
            return None
    return b"".join(parts)


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
    environment.filters |= {
        "both": both,
        "clean": clean,
        "count": "{:,.0f}".format,
        "kind": kind,
        "label": precision_label,
        "ms": ms,
        "names": lambda side, limit: [clean(layer.name, limit) or "(no name)" for layer in side.layers],
        "percent": percent,
        "shape": shape,
        "short": lambda label: _SHORT.get(label, "·"),
        "si": si,
        "tenth": "{:.1f}".format,
    }
    return environment.from_string(_asset("page.html"))
