"""Sums of layers, their floors on a device, and how figures are written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from engines.bundle.layers import Layer
from engines.inspector.devices import Device

_NAMES = {
    "FP32": "float32 fp32",
    "FP16": "float16 fp16",
    "BF16": "bfloat16 bf16",
    "INT8": "int8",
    "UINT8": "uint8",
    "FP8": "float8 float8_e4m3fn float8e4m3fn fp8",
}
_LABELS = {name: label for label, names in _NAMES.items() for name in names.split()}


def clean(text: str, limit: int = 200) -> str:
    """Untrusted text on one line: what is not printable is replaced, and the middle of what is too long left out."""
    if len(text) > limit:
        tail = limit // 3
        text = f"{text[: limit - tail - 1]}…{text[-tail:]}"
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def precision_label(name: str) -> str:
    """ "FP16" for the type "float16" and the precision "fp16", and so on; others by their own name."""
    return _LABELS.get(name, clean(name, 16))


def si(value: float, unit: str = "") -> str:
    """Three digits with a decimal prefix: 1234567 is "1.23 M"."""
    # 999.6 k would be written 1000 k.
    prefixes = (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
    prefix, scale = next((one for one in prefixes if abs(value) >= 0.9995 * one[1]), ("", 1))
    scaled = value / scale
    digits = str(int(scaled)) if scaled == int(scaled) else f"{scaled:#.3g}".rstrip(".")
    return f"{digits} {prefix}{unit}".rstrip()


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
class Figures:
    """The sums of some layers, at batch 1: all of a report, those of one precision, one by itself, or none."""

    layers: Sequence[Layer]
    device: Device | None = None
    """The device that floors are those of; None: there are none."""

    @cached_property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def weight_bytes(self) -> int:
        return sum(layer.weight_bytes for layer in self.layers)

    @cached_property
    def activation_bytes(self) -> int:
        return sum(layer.activation_bytes for layer in self.layers)

    @property
    def bytes(self) -> int:
        """The bytes of weights and activations."""
        return self.weight_bytes + self.activation_bytes

    @cached_property
    def floor(self) -> float | None:
        """The milliseconds that layer after layer takes at best; None without a device, or layers."""
        return sum(map(self.device.floor, self.layers)) if self.device is not None and self.layers else None

    @cached_property
    def milliseconds(self) -> float | None:
        """The sum of the measured times; None unless all were measured."""
        times = [layer.milliseconds for layer in self.layers if layer.milliseconds is not None]
        return sum(times) if times and len(times) == len(self.layers) else None

    @cached_property
    def timed(self) -> Figures:
        """The figures of the layers whose times were measured."""
        return Figures([layer for layer in self.layers if layer.milliseconds is not None], self.device)

    @cached_property
    def idle(self) -> Figures:
        """The figures of the layers without arithmetic."""
        return Figures([layer for layer in self.layers if not layer.macs], self.device)

    @property
    def intensity(self) -> float:
        """FLOP (two per MAC) per byte of weights and activations; 0 without arithmetic."""
        return 2 * self.macs / self.bytes if self.bytes else 0.0

    @property
    def attained(self) -> float | None:
        """FLOP/s where the time was measured, else what the device allows; None for no arithmetic or no time."""
        time = self.floor if self.milliseconds is None else self.milliseconds
        return 2e3 * self.macs / time if self.macs and time else None

    @cached_property
    def by_precision(self) -> dict[str, Figures]:
        """The figures of each precision, that with the most MACs first."""
        groups: dict[str, list[Layer]] = defaultdict(list)
        for layer in self.layers:
            groups[precision_label(layer.precision)].append(layer)
        parts = {label: Figures(layers, self.device) for label, layers in groups.items()}
        return dict(sorted(parts.items(), key=lambda part: (-part[1].macs, -len(part[1].layers), part[0])))

    def share(self, label: str) -> float:
        """The share of the MACs that are in a precision such as "FP16"; 0 where there are none."""
        return self.by_precision[label].macs / self.macs if self.macs and label in self.by_precision else 0.0

    @property
    def precision(self) -> str:
        """The label of what is computed with; several, that of the most MACs first, where layers differ.

        Layers without arithmetic count only if there is no other: a cast beside a convolution changes nothing.
        """
        sums: Counter[str] = Counter()
        for layer in [layer for layer in self.layers if layer.macs] or self.layers:
            sums[precision_label(layer.precision)] += layer.macs
        return " + ".join(name for name, _ in sums.most_common(4))
