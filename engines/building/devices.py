"""The vendor's figures of its devices: ceilings, memory, and which runtime serves them.

GeForce cards multiply FP16 and FP8 with FP32 accumulation at half the rate of FP16 accumulation, and whitepapers give
both; the slower one stands here, since it is what engines of this project compute with.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from engines.building.proof import check_targets
from engines.bundle.engine_manifest import Precision
from engines.errors import EngineError


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One device. Rates are dense: structured sparsity is not counted."""

    title: str
    architecture: str
    fp32_tflops: float
    fp16_tflops: float
    """FP16 products on tensor cores with FP32 accumulation, TFLOP/s."""
    int8_tops: float
    """INT8 products on tensor cores, TOP/s."""
    fp8_tflops: float | None = None
    """FP8 products on tensor cores with FP32 accumulation, TFLOP/s; None before SM89, which has no such cores."""
    bandwidth_gbs: float
    """Memory bandwidth, GB/s."""
    memory_gb: float
    """Device memory, GB; on a Jetson the CPU shares it."""
    runtime: str
    """The runtime whose builder serves it."""
    source: str
    """The vendor's document that the figures are those of."""
    checked: bool
    """True if they were compared with a page that quotes that document (November 2026): the documents themselves could
    not be opened where this table was checked."""

    @property
    def rates(self) -> dict[Precision, float | None]:
        """The rate of each precision, TFLOP/s or TOP/s; None where the device lacks it."""
        return {"fp32": self.fp32_tflops, "fp16": self.fp16_tflops, "int8": self.int8_tops, "fp8": self.fp8_tflops}

    def tflops(self, precision: Precision) -> float:
        """The rate of a precision, TFLOP/s or TOP/s.

        Raises:
            EngineError: for FP8 on a device without it.
        """
        check_targets(precision, (self.architecture,))
        rate = self.rates[precision]
        assert rate is not None, f"{self.title} is new enough for {precision} and has no figure for it"
        return rate


def _table() -> dict[str, Gpu]:
    lines = Path(__file__).with_name("devices.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {row.pop("name"): _GPU.validate_python({key: cell for key, cell in row.items() if cell}) for row in rows}


_GPU = TypeAdapter(Gpu)
DEVICES: dict[str, Gpu] = _table()
"""The devices of devices.csv, by name."""
ALIASES = {"orin": "agx-orin"}
"""Other names of devices; a family's stands for its largest."""


def device(name: str) -> Gpu:
    """A device by name.

    Raises:
        EngineError: for an unknown one; the message lists those there are.
    """
    gpu = DEVICES.get(ALIASES.get(name, name))
    if gpu is None:
        raise EngineError(f"unknown GPU {name!r}; there are {', '.join(sorted(DEVICES))}")
    return gpu
