"""Where things are in the roofline plot: arithmetic intensity against FLOP/s, both logarithmic, under ceilings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from engines.inspector.devices import Device
from engines.inspector.figures import Figures, precision_label, si

_MAX_POINTS = 1000
"""Layers of one report that a plot can still show: those with the most MACs."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 18, 46
_KINDS = {"FP16": "p16", "FP32": "p32", "BF16": "pb16", "INT8": "p8", "FP8": "pf8"}
SHORT = {"FP16": "16", "FP32": "32", "BF16": "b16", "INT8": "i8", "FP8": "f8"}
"""Labels for small cells."""


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


@dataclass
class Plot:
    """What is drawn in a box of `width` x `height` units of 1 CSS pixel at full size."""

    width: int
    height: int
    lines: list[tuple[str, float, float, float, float]] = field(default_factory=list)
    """CSS class, and both ends."""
    marks: list[tuple[Point, float, float, float]] = field(default_factory=list)
    """A point, its place and its radius."""
    texts: list[tuple[str, float, float, str, str, str]] = field(default_factory=list)
    """CSS class, place, words, anchor and transformation: over the points, to stay readable."""


def kind(label: str) -> str:
    """The CSS class of a precision label; of several that of the first."""
    return _KINDS.get(label.split(" + ")[0], "po")


def points(figures: Figures, targets: dict[int, str], second: bool = False) -> list[Point]:
    """The layers that have arithmetic and a row, largest first so that small ones lie on top."""
    layers, whole = figures.report.layers, figures.report.macs
    found = []
    for index in sorted((i for i in targets if layers[i].macs), key=lambda i: -layers[i].macs)[:_MAX_POINTS]:
        layer = layers[index]
        intensity, flops = figures.intensity(layer), figures.attained(layer)
        if intensity > 0 and flops is not None:
            colour, measured = kind(precision_label(layer.precision)), layer.milliseconds is not None
            found.append(Point(intensity, flops, layer.macs / whole, colour, targets[index], measured, second))
    return found


def ceilings(figures: Sequence[Figures]) -> tuple[dict[float, list[str]], list[str]]:
    """What is known of the types that layers with arithmetic have: labels by peak in FLOP/s, and those without one.

    The device is that of the first; without one nothing is known nor asked.
    """
    roofs: dict[float, list[str]] = {}
    unknown: list[str] = []
    device = figures[0].device
    if device is None:
        return roofs, unknown
    for dtype in dict.fromkeys(layer.precision for one in figures for layer in one.report.layers if layer.macs):
        peak = device.tflops(dtype)
        labels = unknown if peak is None else roofs.setdefault(peak * 1e12, [])
        if (label := precision_label(dtype)) not in labels:
            labels.append(label)
    if not roofs:
        highest = max(device.peaks, key=lambda dtype: device.peaks[dtype])
        roofs[device.peaks[highest] * 1e12] = [precision_label(highest)]
    return roofs, unknown


def plot(device: Device | None, roofs: dict[float, list[str]], marks: Sequence[Point], width: int, height: int) -> Plot:
    """The plot of points under the `ceilings` of a device, or under none."""
    made = Plot(width, height)
    xs, ys = [p.intensity for p in marks] or [1.0], [p.flops for p in marks] or [1e9]
    if device is not None:
        xs, ys = [*xs, max(roofs) / (device.bandwidth * 1e9)], [*ys, max(roofs)]
    x0, x1 = _range(xs, 0.22)
    y0, y1 = _range(ys, 0.3)
    right, bottom = width - _RIGHT, height - _BOTTOM

    def px(value: float) -> float:
        return _LEFT + (math.log10(value) - x0) / (x1 - x0) * (right - _LEFT)

    def py(value: float) -> float:
        return bottom - (math.log10(value) - y0) / (y1 - y0) * (bottom - _TOP)

    for value, whole in _ticks(x0, x1):
        made.lines.append(("grid" if whole else "grid fine", px(value), _TOP, px(value), bottom))
        if whole or x1 - x0 < 2.2:
            made.texts.append(("tick", px(value), bottom + 17, f"{value:g}", "middle", ""))
    for value, whole in _ticks(y0, y1):
        made.lines.append(("grid" if whole else "grid fine", _LEFT, py(value), right, py(value)))
        if whole or y1 - y0 < 2.2:
            made.texts.append(("tick", _LEFT - 8, py(value) + 4, si(value), "end", ""))
    made.texts.append(("axis", (_LEFT + right) / 2, height - 8, "FLOP per byte", "middle", ""))
    made.texts.append(("axis", 4, 11, "FLOP/s", "start", ""))
    largest = max(9.0, height / 36)
    if device is not None:
        slope, highest = device.bandwidth * 1e9, max(roofs)
        start = max(10**x0, 10**y0 / slope)
        made.lines.append(("roof", px(start), py(start * slope), px(highest / slope), py(highest)))
        for peak, labels in sorted(roofs.items(), reverse=True):
            style = "roof" if peak == highest else "roof low"
            made.lines.append((style, px(peak / slope), py(peak), px(10**x1), py(peak)))
            name = f"{', '.join(labels)} {si(peak, 'FLOP/s')}"
            made.texts.append(("ceiling", right - 2, py(peak) - largest - 3, name, "end", ""))
        # Along the slope, a little above it.
        middle = math.sqrt(start * highest / slope)
        x, y = px(middle), py(middle * slope)
        angle = math.degrees(math.atan2(y - py(start * slope), x - px(start)))
        turned = f"rotate({angle:.1f} {x:.1f} {y:.1f})"
        made.texts.append(("ceiling", x, y - 7, f"{device.bandwidth:,.0f} GB/s", "middle", turned))
    biggest = max((mark.share for mark in marks), default=1.0)
    for mark in marks:
        radius = max(2.5, largest * math.sqrt(mark.share / biggest))
        made.marks.append((mark, px(mark.intensity), py(mark.flops), radius))
    return made


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    """First and last power of ten of an axis, at least one decade apart."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(margin, (1 - (high - low)) / 2)
    return low - room, high + room


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
