"""Measurements as one HTML page: figures drawn inside it, tables of what they show, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from markupsafe import Markup

from bench.figures import Figure, inline
from bench.latency import plot as latency_plot
from bench.latency.result import Result, parse
from bench.program import read_json
from engines.errors import EdgeditError

_DRAWING_ERRORS = (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError)
"""The errors of drawing a file of the right kind with the wrong content."""


@dataclass(frozen=True)
class Section:
    """One file."""

    title: str
    raw: dict[str, Any]
    figures: list[tuple[str, Figure]]
    headings: Sequence[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, str]:
        """The place and the way of its measurement, by name."""
        device = self.raw.get("device", {})
        facts = {
            "device": device.get("name", "") if isinstance(device, dict) else str(device),
            "threads": str(self.raw.get("threads", "")),
            "date": str(self.raw.get("date", "")),
            "versions": ", ".join(f"{name} {version}" for name, version in self.raw.get("versions", {}).items()),
            "command": str(self.raw.get("command", "")),
        }
        return {name: value for name, value in facts.items() if value}


def page(files: Iterable[Path], command: str = "") -> bytes:
    """The page of some files, UTF-8.

    Args:
        files: of `edgedit bench latency`, `bench time` or `bench serve`, in the order in which they are shown.
        command: what made it, for the footer.

    Raises:
        EdgeditError: if one of them is none of these, or cannot be read.
    """
    # A dollar sign in a name begins no formula.
    with matplotlib.rc_context({"text.parse_math": False}):
        sections = [_section(path) for path in files]
        drawn = [
            [(text, Markup(inline(figure, f"s{number}f{place}"))) for place, (text, figure) in enumerate(one.figures)]
            for number, one in enumerate(sections)
        ]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    return template.render(sections=list(zip(sections, drawn, strict=True)), command=command).encode()


def _section(path: Path) -> Section:
    raw = read_json(path)
    rows = raw.get("rows")
    first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    if "speedup" in first:
        return _latency(raw, parse(raw, str(path)))
    try:
        if "complete" in first:
            return _table5(raw)
        if "way" in first:
            return _serve(raw)
    except _DRAWING_ERRORS as error:
        raise EdgeditError(f"{path} cannot be drawn: {type(error).__name__}: {error}; measure it again") from None
    raise EdgeditError(f"{path} is not a file of `edgedit bench latency`, `bench time` or `bench serve`")


def _latency(raw: dict[str, Any], result: Result) -> Section:
    headings = ("graph", "batch", "runtime", "ms", "95 %", "×", "95 %", "of products", "of copies", "passes")
    return Section(
        f"Latency of {raw.get('bundle', {}).get('name', 'a bundle')}",
        raw,
        list(latency_plot.figures(result)),
        headings,
        [
            [
                row.graph,
                str(row.batch),
                row.name,
                f"{row.median_ms:,.1f}",
                _bounds(row.interval_ms, ",.1f"),
                "" if row.speedup is None else f"{row.speedup:.2f}",
                _bounds(row.speedup_interval, ".2f"),
                *("" if share is None else f"{share:.0%}" for share in (row.share_of_product, row.share_of_copy)),
                str(len(row.samples_ms)),
            ]
            for row in result.rows
        ],
        [
            f"A pass: {result.boundary}.",
            f"A start: {result.start_boundary}.",
            f"×: how many times faster than {result.base}, within rounds. Of products and copies: shares of what the "
            "machine did at most in the same rounds, FP32 products of matrices and copies of memory; bytes as if no "
            "node were fused, so that more than 100 % of copies is possible.",
            *(f"Not measured: {name}: {reason}." for name, reason in result.not_measured.items()),
        ],
    )


def _table5(raw: dict[str, Any]) -> Section:
    from bench.table5.plot import figure

    return Section(
        f"Table 5: {raw['family']}, {raw['how']}, {raw['precision']}",
        raw,
        [("Time of one edit of one image by multiply-accumulates", figure(raw))],
        ("method", "GMACs", "seconds", f"to {raw['base']}"),
        [
            [
                row["method"],
                f"{row['gmacs']:.1f}",
                f"{row['complete']['median_ms'] / 1e3:.3f}",
                "" if row["ratio"] is None else f"{row['ratio']:.2f}",
            ]
            for row in raw["rows"]
        ],
        ["Weights are random."],
    )


def _serve(raw: dict[str, Any]) -> Section:
    from bench.serve.plot import figure

    headings = ("model", "way", "batching", "callers", "p50 ms", "p95 ms", "p99 ms", "images/s")
    return Section(
        f"Serving {raw['bundle']}",
        raw,
        [("Latency and throughput by callers at a time", figure(raw))],
        headings,
        [list(_serve_row(row)) for row in raw["rows"]],
    )


def _serve_row(row: dict[str, Any]) -> Iterator[str]:
    yield from (str(row[name]) for name in ("model", "way", "batching", "concurrency"))
    yield from (f"{row[name]:,.1f}" for name in ("p50_ms", "p95_ms", "p99_ms", "images_per_second"))


def _bounds(within: tuple[float, float] | None, form: str) -> str:
    return f"{within[0]:{form}} to {within[1]:{form}}" if within else ""
