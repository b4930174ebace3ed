"""The gates that an accuracy certificate must pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_EXACT: dict[str, float] = {"psnr": 45.0, "identity": 0.999, "snr": 40.0}
GATES: dict[str, dict[str, float]] = {
    "fp32": _EXACT,
    "fp16": _EXACT,
    "int8": {"psnr": 38.0, "identity": 0.98, "snr": 20.0},
    "fp8": {"psnr": 30.0, "identity": 0.98, "snr": 20.0},
}
"""The gates by precision: the worst photo's PSNR in dB, the mean identity cosine, and for tensors the signal-to-noise
ratio in dB. FP8 rounds to four significant bits, INT8 to a fixed step of its range."""


def passes(certificate: Mapping[str, Any]) -> bool:
    """True if a certificate's figures meet the gates it names; identity counts where it was measured."""
    images, gates = certificate["images"], certificate["gates"]
    if images is None:
        return all(
            t["max_abs"] is not None and (t["snr"] is None or t["snr"] >= gates["snr"])
            for t in certificate["tensors"].values()
        )
    same = images["identity"] is None or images["identity"]["mean"] >= gates["identity"]
    return images["psnr"]["worst"] >= gates["psnr"] and same


def shortfall(certificate: Mapping[str, Any]) -> str:
    """A failed certificate in words."""
    if certificate["nan"] or certificate["inf"]:
        return f"{certificate['nan']} values are not numbers and {certificate['inf']} infinite"
    if overflowed := certificate.get("activations", {}).get("overflowed"):
        return f"{overflowed[0]} leaves the range of FP16"
    images = certificate["images"]
    if images is not None:
        identity = images["identity"]
        identity_text = f", identity {identity['mean']:.4f}" if identity else ""
        return f"worst PSNR {images['psnr']['worst']:.1f} dB{identity_text}"
    name, worst = min(certificate["tensors"].items(), key=lambda item: item[1]["snr"] or math.inf)
    return f"{name} has a signal-to-noise ratio of {worst['snr']:.1f} dB"
