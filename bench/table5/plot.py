"""Multiply-accumulates against time, one dot a method: as published, and as measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from bench.figures import Figure, save
from bench.table5.times import BASE
from bench.timing import quartiles

_COLOUR, _OWN = "#1f77b4", "#d95f02"
_PLACES = [
    ((7, 0), "left", "center"),
    ((-7, 0), "right", "center"),
    ((0, 7), "center", "bottom"),
    ((0, -7), "center", "top"),
    ((6, 9), "left", "bottom"),
    ((6, -9), "left", "top"),
    ((-6, 9), "right", "bottom"),
    ((-6, -9), "right", "top"),
]
"""Places of a label beside its dot, in points, in the order in which they are tried."""


@dataclass(frozen=True)
class Dot:
    """A method."""

    label: str
    gmacs: float
    seconds: float
    quartiles: tuple[float, float] | None = None
    """Seconds."""


def draw(result: dict[str, Any], path: Path) -> None:
    """Writes an SVG or PNG file from what `bench.table5.times.measure` gives.

    Raises:
        OutputError: if it cannot be written.
    """
    save(figure(result), path)


def figure(result: dict[str, Any]) -> Figure:
    """Two panels: the paper's figures on its device, those of the result on its own; error bars are quartiles."""
    made = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(made)
    left, right = made.subplots(1, 2)
    rows = result["rows"]
    published = [Dot(r["method"], r["paper_gmacs"], r["paper_seconds"]) for r in rows if r["paper_seconds"]]
    measured = [Dot(r["method"], r["gmacs"], r["complete"]["median_ms"] / 1e3, _seconds(r["complete"])) for r in rows]
    how = f"{result['how']}, {result['precision']}" if result["how"] == "eager" else "ONNX Runtime"
    base = next((row["method"] for row in rows if row["key"] == BASE), None)
    _panel(left, published, base, "published", f"{result['paper_device']}; GMACs as each row counts them")
    device = result.get("device", {}).get("name", "this machine")
    _panel(right, measured, base, f"measured: {result['family']}, {how}, random weights", f"{device}; GMACs complete")
    # Where labels go depends on where the dots are drawn.
    made.canvas.draw()
    for axis, dots in ((left, published), (right, measured)):
        _label(axis, dots)
    return made


def _seconds(summary: dict[str, Any]) -> tuple[float, float]:
    low, high = quartiles(summary["samples_ms"])
    return low / 1e3, high / 1e3


def _panel(axis: Axes, dots: Sequence[Dot], base: str | None, title: str, note: str) -> None:
    for dot in dots:
        colour = _OWN if dot.label.startswith("Ours") else _COLOUR
        if dot.quartiles is not None:
            axis.plot([dot.gmacs] * 2, dot.quartiles, color=colour, lw=1.2)
        axis.plot(dot.gmacs, dot.seconds, "o", color=colour, markersize=6)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.margins(0.18)
    anchor = next((dot for dot in dots if dot.label == base), None)
    if anchor is not None:
        # Methods on it take as long for a product as the base does.
        ends = axis.get_xlim()
        line = [anchor.seconds * x / anchor.gmacs for x in ends]
        axis.plot(ends, line, "--", color="#999999", lw=0.8, zorder=0, scalex=False, scaley=False)
    for sides in (axis.xaxis, axis.yaxis):
        sides.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        sides.set_major_formatter("{x:g}")
        sides.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.25)
    axis.set_title(f"{title}\n", fontsize=10)
    axis.text(0.5, 1.01, note, transform=axis.transAxes, ha="center", va="bottom", fontsize=8, color="#777777")
    axis.set_xlabel("GMACs")
    axis.set_ylabel("seconds for one edit of one image")


def _label(axis: Axes, dots: Sequence[Dot]) -> None:
    """Puts each label at the first place beside its dot that nothing else covers, or the least covered."""
    taken = [_box(axis.transData.transform((dot.gmacs, dot.seconds)), 5) for dot in dots]
    frame = axis.get_window_extent()
    for dot in sorted(dots, key=lambda dot: dot.gmacs):
        best: tuple[float, Any, Bbox] | None = None
        for offset, ha, va in _PLACES:
            text = axis.annotate(
                dot.label, (dot.gmacs, dot.seconds), offset, textcoords="offset points", ha=ha, va=va, fontsize=9
            )
            box = text.get_window_extent()
            covered = sum(_common(box, other) for other in taken) + box.width * box.height - _common(box, frame)
            if best is None or covered < best[0]:
                if best is not None:
                    best[1].remove()
                best = covered, text, box
            else:
                text.remove()
            if not covered:
                break
        assert best is not None
        taken.append(best[2])


def _box(centre: Any, radius: float) -> Bbox:
    x, y = centre
    return Bbox([[x - radius, y - radius], [x + radius, y + radius]])


def _common(a: Bbox, b: Bbox) -> float:
    """The area of both."""
    both = Bbox.intersection(a, b)
    return 0.0 if both is None else both.width * both.height
