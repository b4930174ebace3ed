"""How near a graph's activations come to FP16's limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LIMIT = 65504.0
"""The largest finite FP16 value."""
NEAR = LIMIT / 8
"""From here on a value is named: three doublings are left."""


@dataclass(frozen=True)
class Ranges:
    """The largest magnitudes seen while a graph ran."""

    largest: float
    """Of all FP16 values; infinite if one overflowed."""
    near: dict[str, float]
    """By value, the magnitudes of at least `NEAR`, largest first."""
    overflowed: list[str]
    """Values that left the range, in the order of the graph: the first is where it began."""

    @property
    def headroom(self) -> float:
        """How many times larger the activations might be."""
        return LIMIT / self.largest if self.largest else float("inf")


def ranges(peaks: Mapping[str, float]) -> Ranges:
    """Sums up the peaks of an `emulate.Emulated` run: by FP16 value, its largest magnitude."""
    near = sorted(((peak, name) for name, peak in peaks.items() if peak >= NEAR), reverse=True)
    return Ranges(
        largest=max(peaks.values(), default=0.0),
        near={name: peak for peak, name in near},
        overflowed=[name for name, peak in peaks.items() if peak > LIMIT],
    )
