"""The device whose two ceilings, arithmetic and memory bandwidth, layers are held against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from engines.bundle.layers import Layer
from engines.errors import EngineError

_USUAL = "rtx3090"
"""The paper's GPU."""


@dataclass(frozen=True)
class Device:
    """Ceilings of one device."""

    name: str
    peaks: Mapping[str, float]
    """TFLOP/s by type of what is computed with; "" is for every type."""
    bandwidth: float
    """GB/s."""

    def tflops(self, dtype: str) -> float | None:
        """The arithmetic ceiling of a type, in TFLOP/s; None if there is no figure for it."""
        return self.peaks.get(dtype, self.peaks.get(""))

    def floor(self, layer: Layer) -> float:
        """The least milliseconds that a layer takes: its arithmetic or its memory traffic alone, whichever is longer.

        Without an arithmetic ceiling for the type memory alone counts.
        """
        peak = self.tflops(layer.precision)
        compute = 2 * layer.macs / (peak * 1e12) if peak is not None else 0.0
        return 1e3 * max(compute, (layer.weight_bytes + layer.activation_bytes) / (self.bandwidth * 1e9))


def find_device(
    name: str | None, peak_tflops: float | None = None, bandwidth_gbs: float | None = None
) -> Device | None:
    """The device of that name, or one of two figures; None if neither is asked for.

    Raises:
        EngineError: for an unknown name, half of the figures or one that is not positive, or both ways at once.
    """
    if peak_tflops is None and bandwidth_gbs is None:
        return _named(name) if name is not None else None
    if name is not None:
        raise EngineError("--gpu and --peak-tflops exclude each other: leave one out")
    if peak_tflops is None or bandwidth_gbs is None:
        raise EngineError("--peak-tflops and --bandwidth-gbs go together: give both")
    for option, value in (("--peak-tflops", peak_tflops), ("--bandwidth-gbs", bandwidth_gbs)):
        if not (math.isfinite(value) and value > 0):
            raise EngineError(f"{option} must be a positive number, got {value:g}")
    return Device(f"{peak_tflops:g} TFLOP/s, {bandwidth_gbs:g} GB/s", {"": peak_tflops}, bandwidth_gbs)


def assume_device(target: str | None, measured: bool) -> Device | None:
    """The device that is taken if none is named: one of the (first) target's architecture, said to be assumed.

    For a graph, or a target that names no architecture, it is the paper's GPU, unless times were measured, which would
    have been somewhere else; then it is None.
    """
    from engines.building.devices import DEVICES

    architecture = (target or "").partition("+")[0]
    fitting = [name for name, gpu in DEVICES.items() if gpu.architecture == architecture]
    if not fitting and not architecture.startswith("sm") and not measured:
        fitting = [_USUAL]
    if not fitting:
        return None
    return _named(_USUAL if _USUAL in fitting else fitting[0], ", assumed")


def _named(name: str, note: str = "") -> Device:
    from engines.building.devices import device
    from engines.building.proof import DTYPES

    gpu = device(name)
    # BF16 runs at FP16's rate on tensor cores.
    peaks = {"bfloat16": gpu.fp16_tflops} | {DTYPES[name]: rate for name, rate in gpu.rates.items() if rate is not None}
    return Device(gpu.title + note, peaks, gpu.bandwidth_gbs)
