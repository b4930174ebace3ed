"""The roofline plot: arithmetic intensity against FLOP/s, both logarithmic, under the ceilings of a device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engines.inspector.devices import Device
from engines.inspector.figures import Figures, precision_label
from engines.inspector.subject import Subject

_MAX_POINTS = 1000
"""Layers of one report that a plot can still show: those with the most MACs."""
_LARGEST, _SMALLEST = 12.0, 2.5
"""Radii of points, in pixels."""

_KINDS = {"FP16": "p16", "FP32": "p32", "BF16": "pb16", "INT8": "p8", "FP8": "pf8"}


def kind(label: str) -> str:
    """The CSS class of a precision label; of several that of the first."""
    return _KINDS.get(label.split(" + ")[0], "po")


@dataclass(frozen=True)
class Point:
    """One layer in the plot."""

    figures: Figures
    share: float
    """The share of its report's MACs: the area."""
    row: int
    """Number of the table row it belongs to."""
    second: bool
    """True for the other of two reports: drawn as a diamond."""


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis between two powers of ten."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float], margin: float) -> Axis:
        """The axis of at least one decade that holds these values, with a margin in decades."""
        low, high = math.log10(min(values)), math.log10(max(values))
        room = max(margin, (1 - (high - low)) / 2)
        return cls(low - room, high + room)

    def place(self, value: float) -> float:
        """The place of a value, in percent of the axis from its low end."""
        return 100 * (math.log10(value) - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[tuple[float, bool, bool]]:
        """The values of the grid lines, whether each is a power of ten, and whether it is written."""
        decades = self.high - self.low
        step = 1 if decades <= 8 else math.ceil(decades / 8)
        exponents = range(math.floor(self.low), math.ceil(self.high) + 1)
        ticks = [(10.0**exponent, True, True) for exponent in exponents if exponent % step == 0]
        if decades <= 4:
            ticks += [(m * 10.0**exponent, False, decades < 2.2) for exponent in exponents for m in (2, 5)]
        return [tick for tick in ticks if self.low <= math.log10(tick[0]) <= self.high]


@dataclass(frozen=True)
class Plot:
    """The content of a roofline plot; the page places it in percent, so that it fits any width."""

    points: list[Point]
    x: Axis
    y: Axis
    device: Device | None
    roofs: dict[float, list[str]]
    """Labels of precisions by their ceiling in FLOP/s, the highest first; none without a device."""
    unknown: list[str]
    """Labels of precisions for which the device has no ceiling."""

    def at(self, intensity: float | None, flops: float | None) -> tuple[str, str]:
        """The place of two values, from the upper left; of None the upper left corner's."""
        x = 0.0 if intensity is None else self.x.place(intensity)
        y = 100.0 if flops is None else self.y.place(flops)
        return f"{x:.2f}%", f"{100 - y:.2f}%"

    @property
    def slope(self) -> tuple[float, float]:
        """The FLOP per byte at which the slope of the memory begins, at the plot's border, and of its middle."""
        assert self.device is not None
        bandwidth = self.device.bandwidth * 1e9
        first = max(10**self.x.low, 10**self.y.low / bandwidth)
        return first, math.sqrt(first * next(iter(self.roofs)) / bandwidth)

    def radius(self, point: Point) -> float:
        """The radius of a point, in pixels."""
        biggest = max(one.share for one in self.points)
        return max(_SMALLEST, _LARGEST * math.sqrt(point.share / biggest))


def plot(subjects: Sequence[Subject], rows: Sequence[Mapping[int, int]]) -> Plot:
    """The plot of the layers that have arithmetic and a row, largest first so that small ones lie on top.

    Args:
        subjects: one report or two; the device is that of the first.
        rows: for each, the number of a row by the index of a layer.
    """
    points = []
    for second, (subject, places) in enumerate(zip(subjects, rows, strict=True)):
        layers = subject.report.layers
        for index in sorted((i for i in places if layers[i].macs), key=lambda i: -layers[i].macs)[:_MAX_POINTS]:
            one = Figures((layers[index],), subject.device)
            if one.intensity > 0 and one.attained is not None:
                points.append(Point(one, one.macs / subject.figures.macs, places[index], bool(second)))
    device = subjects[0].device
    roofs, unknown = _ceilings(subjects, device) if device is not None else ({}, [])
    xs = [point.figures.intensity for point in points]
    ys = [point.figures.attained or 0.0 for point in points]
    if device is not None:
        highest = next(iter(roofs))
        xs, ys = [*xs, highest / (device.bandwidth * 1e9)], [*ys, highest]
    return Plot(points, Axis.over(xs or [1.0], 0.22), Axis.over(ys or [1e9], 0.3), device, roofs, unknown)


def _ceilings(subjects: Sequence[Subject], device: Device) -> tuple[dict[float, list[str]], list[str]]:
    """Labels of the types of layers with arithmetic, by ceiling in FLOP/s, and the types that have no ceiling."""
    roofs: dict[float, list[str]] = {}
    unknown: list[str] = []
    for dtype in dict.fromkeys(layer.precision for one in subjects for layer in one.report.layers if layer.macs):
        peak = device.tflops(dtype)
        labels = unknown if peak is None else roofs.setdefault(peak * 1e12, [])
        if (label := precision_label(dtype)) not in labels:
            labels.append(label)
    if not roofs:
        highest = max(device.peaks, key=lambda dtype: device.peaks[dtype])
        roofs[device.peaks[highest] * 1e12] = [precision_label(highest)]
    return dict(sorted(roofs.items(), reverse=True)), unknown
