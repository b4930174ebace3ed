"""The roofline plot as inline SVG: arithmetic intensity against FLOP/s, both logarithmic, under a device's ceilings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engines.inspector.figures import Figures, precision_label, si
from engines.inspector.html import Html, el

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 18, 46

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Point:
    """One layer in the plot."""

    intensity: float
    flops: float
    share: float
    """The share of its report's MACs: the area."""
    kind: str
    """CSS class of its precision."""
    target: str
    """Identifier of the table row it belongs to."""
    measured: bool
    second: bool = False
    """True for the other of two reports: drawn as a diamond."""


def kind(label: str) -> str:
    """The CSS class of a precision label."""
    return {"FP16": "p16", "FP32": "p32", "BF16": "pb16", "INT8": "p8", "FP8": "pf8"}.get(label, "po")


def points(figures: Figures, targets: dict[int, str], second: bool = False) -> list[Point]:
    """The layers that have arithmetic and a row, largest first so that small ones lie on top."""
    whole = figures.report.macs
    points = []
    for index, target in targets.items():
        layer = figures.report.layers[index]
        intensity, flops = figures.intensity(layer), figures.attained(layer)
        if intensity > 0 and flops is not None:
            points.append(
                Point(
                    intensity,
                    flops,
                    layer.macs / whole,
                    kind(precision_label(layer.precision)),
                    target,
                    layer.milliseconds is not None,
                    second,
                )
            )
    return sorted(points, key=lambda p: -p.share)


def roofline(figures: Figures, marks: Sequence[Point], width: int, height: int, title: str) -> Html:
    """The plot, in a box of `width` x `height` units of 1 CSS pixel at full size."""
    device = figures.device
    xs, ys = [p.intensity for p in marks] or [1.0], [p.flops for p in marks] or [1e9]
    ceilings: dict[str, tuple[float, list[str]]] = {}
    if device is not None:
        for dtype in dict.fromkeys(layer.precision for layer in figures.report.layers if layer.macs):
            peak = device.tflops(dtype)
            if peak is not None:
                ceilings.setdefault(f"{peak:g}", (peak * 1e12, []))[1].append(precision_label(dtype))
        if not ceilings:
            highest = max(device.peaks, key=lambda dtype: device.peaks[dtype])
            ceilings["all"] = (device.peaks[highest] * 1e12, [precision_label(highest)])
        top = max(peak for peak, _ in ceilings.values())
        xs, ys = [*xs, top / (device.bandwidth * 1e9)], [*ys, top]
    x0, x1 = _range(xs, 0.22)
    y0, y1 = _range(ys, 0.3)

    def px(value: float) -> float:
        return _LEFT + (math.log10(value) - x0) / (x1 - x0) * (width - _LEFT - _RIGHT)

    def py(value: float) -> float:
        return height - _BOTTOM - (math.log10(value) - y0) / (y1 - y0) * (height - _TOP - _BOTTOM)

    largest = max(9.0, height / 36)
    parts: list[Html] = [el("title", title)]
    # Over the points, to stay readable.
    words: list[Html] = []
    parts += _axes(width, height, (x0, x1), (y0, y1), px, py)
    if device is not None:
        slope = device.bandwidth * 1e9
        widest = max(peak for peak, _ in ceilings.values())
        start = max(10**x0, 10**y0 / slope)
        parts.append(_line("roof", px(start), py(start * slope), px(widest / slope), py(widest)))
        for peak, labels in sorted(ceilings.values(), reverse=True):
            ridge = peak / slope
            parts.append(_line("roof" if peak == widest else "roof low", px(ridge), py(peak), px(10**x1), py(peak)))
            name = f"{', '.join(dict.fromkeys(labels))} {si(peak, 'FLOP/s')}".strip()
            words.append(_text("ceiling", width - _RIGHT - 2, py(peak) - largest - 3, name, "end"))
        # Along the slope, a little above it.
        middle = math.sqrt(start * widest / slope)
        angle = math.degrees(math.atan2(py(middle * slope) - py(start * slope), px(middle) - px(start)))
        at = f"rotate({angle:.1f} {px(middle):.1f} {py(middle * slope):.1f})"
        words.append(
            el(
                "text",
                f"{device.bandwidth:,.0f} GB/s",
                class_="ceiling",
                x=f"{px(middle):.1f}",
                y=f"{py(middle * slope) - 7:.1f}",
                text_anchor="middle",
                transform=at,
            )
        )
    biggest = max((mark.share for mark in marks), default=1.0)
    for mark in marks:
        radius = max(2.5, largest * math.sqrt(mark.share / biggest))
        parts.append(_mark(mark, px(mark.intensity), py(mark.flops), radius))
    return el("svg", *parts, *words, viewBox=f"0 0 {width} {height}", role="img", class_="roofline")


def _mark(mark: Point, x: float, y: float, radius: float) -> Html:
    classes = f"m {mark.kind}{'' if mark.measured else ' est'}"
    if not mark.second:
        return el("circle", class_=classes, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{radius:.1f}", data_l=mark.target)
    d = f"M{x:.1f} {y - radius:.1f}l{radius:.1f} {radius:.1f}l{-radius:.1f} {radius:.1f}l{-radius:.1f} {-radius:.1f}z"
    return el("path", class_=f"{classes} second", d=d, data_l=mark.target)


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    """First and last power of ten of an axis, at least one decade apart."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(margin, (1 - (high - low)) / 2)
    return low - room, high + room


def _axes(
    width: int, height: int, xs: tuple[float, float], ys: tuple[float, float], px: Scale, py: Scale
) -> list[Html]:
    parts = []
    bottom = height - _BOTTOM
    few_x, few_y = (high - low < 2.2 for low, high in (xs, ys))
    for value, whole in _ticks(*xs):
        parts.append(_line("grid" if whole else "grid fine", px(value), _TOP, px(value), bottom))
        if whole or few_x:
            parts.append(_text("tick", px(value), bottom + 17, f"{value:g}", "middle"))
    for value, whole in _ticks(*ys):
        parts.append(_line("grid" if whole else "grid fine", _LEFT, py(value), width - _RIGHT, py(value)))
        if whole or few_y:
            parts.append(_text("tick", _LEFT - 8, py(value) + 4, si(value), "end"))
    parts.append(_text("axis", (_LEFT + width - _RIGHT) / 2, height - 8, "FLOP per byte", "middle"))
    parts.append(_text("axis", 4, 11, "FLOP/s", "start"))
    return parts


def _ticks(low: float, high: float) -> list[tuple[float, bool]]:
    """Values of the grid lines, and whether each is a power of ten."""
    ticks = []
    step = 1 if high - low <= 8 else math.ceil((high - low) / 8)
    for exponent in range(math.floor(low), math.ceil(high) + 1):
        if exponent % step == 0:
            ticks.append((10.0**exponent, True))
        if high - low <= 4:
            ticks += [(m * 10.0**exponent, False) for m in (2, 5)]
    return [(value, whole) for value, whole in ticks if low <= math.log10(value) <= high]


def _line(kind_: str, x1: float, y1: float, x2: float, y2: float) -> Html:
    return el("line", class_=kind_, x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}")


def _text(kind_: str, x: float, y: float, words: str, anchor: str) -> Html:
    return el("text", words, class_=kind_, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)
