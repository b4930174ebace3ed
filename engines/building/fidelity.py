"""Figures of how far the outputs of a graph are from their reference, from those of each photo or batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np


def image_figures(each: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """The figures of all images of those of each; None if there are none."""
    if not each:
        return None
    return {
        "psnr": _summary(each["psnr"], min),
        "ms_ssim": _summary(each["ms_ssim"], min),
        "max_abs": int(each["max_abs"].max()),
        "pixels_changed": float(each["pixels_changed"].mean()),
        "lpips": _summary(each["lpips"], max) if "lpips" in each else None,
        "identity": _summary(each["identity"], min) if "identity" in each else None,
    }


@dataclass(frozen=True)
class TensorErrors:
    """How far a tensor is from its reference, of one batch or of several together."""

    largest: float
    scale: float
    error: float
    """The sum of squares of the differences."""
    power: float
    """The sum of squares of the reference."""
    nan: int
    inf: int

    @classmethod
    def of(cls, reference: np.ndarray, value: np.ndarray) -> Self:
        """Those of one tensor."""
        a, b = reference.astype(np.float64), value.astype(np.float64)
        scale, power = float(np.abs(a).max()), float(np.square(a).sum())
        a -= b
        largest, error = float(np.abs(a).max()), float(np.square(a).sum())
        return cls(largest, scale, error, power, int(np.isnan(b).sum()), int(np.isinf(b).sum()))

    def __add__(self, other: Self) -> Self:
        return replace(
            self,
            largest=float(np.maximum(self.largest, other.largest)),
            scale=max(self.scale, other.scale),
            error=self.error + other.error,
            power=self.power + other.power,
            nan=self.nan + other.nan,
            inf=self.inf + other.inf,
        )

    @property
    def share(self) -> float:
        """The power of the differences as a share of the reference's; infinite for values that are not finite."""
        return self.error / max(self.power, 1e-12) if math.isfinite(self.error) else math.inf

    def figures(self) -> dict[str, float | None]:
        """The largest difference and value, and the signal-to-noise ratio in dB; None where there is none."""
        known = math.isfinite(self.error) and self.error > 0
        noise = 10 * math.log10(max(self.power, 1e-300) / self.error) if known else None
        return {"max_abs": finite(self.largest), "scale": self.scale, "snr": noise}


def _summary(values: np.ndarray, worst: Callable[[Sequence[float]], float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "worst": float(worst(values.tolist()))}


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None
