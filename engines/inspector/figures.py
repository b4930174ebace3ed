"""Figures that are worked out from a layer report: totals, arithmetic intensity, floors and how figures are written."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from engines.bundle.layers import Layer, LayerReport
from engines.inspector.devices import Device

_LABELS = {
    "float32": "FP32",
    "float16": "FP16",
    "bfloat16": "BF16",
    "int8": "INT8",
    "uint8": "UINT8",
    "float8": "FP8",
    "float8_e4m3fn": "FP8",
    "float8e4m3fn": "FP8",
}
_ASKED = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8", "fp8": "float8"}

UNKNOWN_REASON = "no reason is given"


def clean(text: str, limit: int = 200) -> str:
    """Untrusted text on one line: what is not printable is replaced, and the middle of what is too long left out."""
    if len(text) > limit:
        tail = limit // 3
        text = f"{text[: limit - tail - 1]}…{text[-tail:]}"
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def precision_label(dtype: str) -> str:
    """ "FP16" for "float16", and so on; other types by their own name."""
    return _LABELS.get(dtype, clean(dtype, 16))


def asked_label(precision: str) -> str:
    """The same for a precision that was asked for: "FP16" for "fp16" and for "float16"."""
    return precision_label(_ASKED.get(precision, precision))


def si(value: float, unit: str = "") -> str:
    """Three digits with a decimal prefix: 1234567 is "1.23 M"."""
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # 999.6 k would be written 1000 k.
        if abs(value) >= 0.9995 * scale:
            return f"{_digits(value / scale)} {prefix}{unit}"
    return f"{_digits(value)} {unit}".rstrip()


def _digits(value: float) -> str:
    if value == int(value) and abs(value) < 1000:
        return str(int(value))
    for decimals in (2, 1):
        if abs(round(value, decimals)) < 10 ** (3 - decimals):
            return f"{value:.{decimals}f}"
    return f"{value:.0f}"


def ms(value: float | None) -> str:
    """Milliseconds with three digits; nothing for None."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else "<0.001" if value else "0"


def percent(share: float) -> str:
    """A share with one decimal; more where it would look like all or nothing without being it."""
    if 0 < share < 0.0005:
        return "<0.1 %"
    decimals = 1
    while 0.5 < share < 1 and decimals < 8 and round(100 * share, decimals) >= 100:
        decimals += 1
    return "100 %" if share >= 1 else "0 %" if share <= 0 else f"{100 * share:.{decimals}f} %"


def shape(dims: list[int]) -> str:
    """ "1×512×64×64"; "scalar" for none."""
    return "×".join(str(d) if abs(d) < 10**12 else "…" for d in dims[:8]) + ("×…" if len(dims) > 8 else "") or "scalar"


@dataclass(frozen=True)
class PrecisionTotal:
    """All layers of one precision together."""

    precision: str
    layers: int
    macs: int
    share: float
    """The share of all MACs; 0 where there are none."""
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class Figures:
    """Figures of one report on one device. Times are milliseconds at batch 1."""

    report: LayerReport
    device: Device | None = None
    shown: int = field(default=5000, kw_only=True)

    def floor(self, layer: Layer) -> float | None:
        """The least time that the device allows: its arithmetic or its memory traffic alone, whichever takes longer.

        None without a device. Where the device has no arithmetic ceiling for the type, memory alone counts.
        """
        if self.device is None:
            return None
        traffic = layer.weight_bytes + layer.activation_bytes
        peak = self.device.tflops(layer.precision)
        compute = 2 * layer.macs / (peak * 1e12) if peak is not None else 0.0
        return 1e3 * max(compute, traffic / (self.device.bandwidth * 1e9))

    @staticmethod
    def intensity(layer: Layer) -> float:
        """FLOP (two per MAC) per byte of weights and activations; 0 without arithmetic."""
        traffic = layer.weight_bytes + layer.activation_bytes
        return 2 * layer.macs / traffic if traffic else 0.0

    def attained(self, layer: Layer) -> float | None:
        """FLOP/s where the time was measured, else what the device allows; None for no arithmetic or no time."""
        time = self.floor(layer) if layer.milliseconds is None else layer.milliseconds
        return 2e3 * layer.macs / time if layer.macs and time else None

    @cached_property
    def total_floor(self) -> float | None:
        """The sum of all floors: what layer after layer could take at best."""
        floors = [self.floor(layer) for layer in self.report.layers]
        return sum(f for f in floors if f is not None) if self.device is not None else None

    @cached_property
    def measured(self) -> int:
        """Layers with a measured time."""
        return sum(layer.milliseconds is not None for layer in self.report.layers)

    @cached_property
    def total_ms(self) -> float | None:
        """The sum of the measured times; None if there are none."""
        times = [layer.milliseconds for layer in self.report.layers if layer.milliseconds is not None]
        return sum(times) if times else None

    @cached_property
    def weight_bytes(self) -> int:
        return sum(layer.weight_bytes for layer in self.report.layers)

    @cached_property
    def activation_bytes(self) -> int:
        return sum(layer.activation_bytes for layer in self.report.layers)

    @cached_property
    def precisions(self) -> list[PrecisionTotal]:
        """One per precision, that with the most MACs first."""
        groups: dict[str, list[Layer]] = defaultdict(list)
        for layer in self.report.layers:
            groups[precision_label(layer.precision)].append(layer)
        whole = self.report.macs
        totals = []
        for name, layers in groups.items():
            macs = sum(layer.macs for layer in layers)
            totals.append(
                PrecisionTotal(
                    precision=name,
                    layers=len(layers),
                    macs=macs,
                    share=macs / whole if whole else 0.0,
                    weight_bytes=sum(layer.weight_bytes for layer in layers),
                    activation_bytes=sum(layer.activation_bytes for layer in layers),
                )
            )
        return sorted(totals, key=lambda t: (-t.macs, -t.layers, t.precision))

    def share(self, label: str) -> float:
        """The share of MACs in a precision such as "FP16"."""
        return sum(total.share for total in self.precisions if total.precision == label)

    @cached_property
    def wide(self) -> dict[str, list[Layer]]:
        """Layers by reason: those with one for their precision, and FP32 arithmetic where less was requested."""
        requested = asked_label(self.report.precision)
        groups: dict[str, list[Layer]] = defaultdict(list)
        for layer in self.report.layers:
            silent = requested != "FP32" and precision_label(layer.precision) == "FP32" and layer.macs
            if layer.reason is not None or silent:
                groups[clean(layer.reason or UNKNOWN_REASON, 300)].append(layer)
        return dict(sorted(groups.items(), key=lambda item: (item[0] != UNKNOWN_REASON, -sum(x.macs for x in item[1]))))

    def cost(self, layer: Layer) -> float:
        """The figure that layers are ranked by: measured time, else floor, else MACs."""
        if self.measured:
            return layer.milliseconds or 0.0
        floor = self.floor(layer)
        return float(layer.macs) if floor is None else floor

    @cached_property
    def selection(self) -> list[int]:
        """Indices of the layers that a page shows, in order: all, or the `shown` costliest."""
        indices = range(len(self.report.layers))
        if len(indices) <= self.shown:
            return list(indices)
        return sorted(sorted(indices, key=lambda i: -self.cost(self.report.layers[i]))[: self.shown])

    @cached_property
    def summary(self) -> list[tuple[str, str]]:
        """The figures that sum up a report, by name."""
        requested, count = asked_label(self.report.precision), len(self.report.layers)
        rows = [("MACs at batch 1", si(self.report.macs)), ("FP16 share of MACs", percent(self.share("FP16")))]
        if requested not in ("FP16", "FP32"):
            rows.append((f"{requested} share of MACs", percent(self.share(requested))))
        rows += [
            ("weights", f"{self.weight_bytes / 1e6:,.1f} MB"),
            ("activations moved", f"{self.activation_bytes / 1e6:,.1f} MB"),
            ("layers", f"{count:,}"),
        ]
        if self.total_ms is not None:
            partly = "" if self.measured == count else f", {self.measured:,} of {count:,} layers"
            rows.append((f"measured{partly}", f"{ms(self.total_ms)} ms"))
        if self.device is not None:
            rows.append((f"sum of layer floors, {self.device.name}", f"{ms(self.total_floor)} ms"))
        return rows
