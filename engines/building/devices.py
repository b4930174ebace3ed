"""The vendor's figures of its devices: ceilings, memory, and which runtime serves them.

GeForce cards multiply FP16 and FP8 with FP32 accumulation at half the rate of FP16 accumulation, and whitepapers give
both; the slower one stands here, since it is what engines of this project compute with.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """Whether they were compared with a page that quotes that document (November 2026): the documents themselves could
    not be opened where this table was checked."""

    def tflops(self, precision: Precision) -> float:
        """The rate of a precision, TFLOP/s or TOP/s.

        Raises:
            EngineError: for FP8 on a device without it.
        """
        check_targets(precision, (self.architecture,))
        rates = {
            "fp32": self.fp32_tflops,
            "fp16": self.fp16_tflops,
            "int8": self.int8_tops,
            "fp8": self.fp8_tflops,
        }
        rate = rates[precision]
        assert rate is not None, f"{self.title} is new enough for {precision} and has no figure for it"
        return rate


_RTX, _TRT = "tensorrt-rtx", "tensorrt"

DEVICES: dict[str, Gpu] = {
    "rtx2080ti": Gpu(
        title="GeForce RTX 2080 Ti",
        architecture="sm75",
        fp32_tflops=13.4,
        fp16_tflops=53.8,
        int8_tops=215.2,
        bandwidth_gbs=616,
        memory_gb=11,
        runtime=_RTX,
        source="NVIDIA Turing GPU Architecture whitepaper, reference card",
        checked=False,
    ),
    "t4": Gpu(
        title="T4",
        architecture="sm75",
        fp32_tflops=8.1,
        fp16_tflops=65,
        int8_tops=130,
        bandwidth_gbs=320,
        memory_gb=16,
        runtime=_TRT,
        source="NVIDIA T4 datasheet",
        checked=True,
    ),
    "a100": Gpu(
        title="A100 80GB SXM",
        architecture="sm80",
        fp32_tflops=19.5,
        fp16_tflops=312,
        int8_tops=624,
        bandwidth_gbs=2039,
        memory_gb=80,
        runtime=_TRT,
        source="NVIDIA A100 Tensor Core GPU datasheet",
        checked=True,
    ),
    # Of this card's whitepaper only FP32 and the ratios of its architecture were found quoted (FP16 twice, INT8 eight
    # times FP32), from which the other rates follow.
    "rtx3080": Gpu(
        title="GeForce RTX 3080 10GB",
        architecture="sm86",
        fp32_tflops=29.8,
        fp16_tflops=59.5,
        int8_tops=238,
        bandwidth_gbs=760,
        memory_gb=10,
        runtime=_RTX,
        source="NVIDIA Ampere GA102 GPU Architecture whitepaper",
        checked=False,
    ),
    "rtx3090": Gpu(
        title="GeForce RTX 3090",
        architecture="sm86",
        fp32_tflops=35.6,
        fp16_tflops=71,
        int8_tops=284,
        bandwidth_gbs=936,
        memory_gb=24,
        runtime=_RTX,
        source="NVIDIA Ampere GA102 GPU Architecture whitepaper",
        checked=True,
    ),
    # 67 sparse INT8 TOPS, halved, and FP16 at half of that; FP32 is 1024 cores x 2 at 1.02 GHz.
    "orin-nano": Gpu(
        title="Jetson Orin Nano 8GB Super",
        architecture="sm87",
        fp32_tflops=2.1,
        fp16_tflops=16.75,
        int8_tops=33.5,
        bandwidth_gbs=102,
        memory_gb=8,
        runtime=_TRT,
        source="NVIDIA Jetson Orin Nano Super Developer Kit datasheet",
        checked=True,
    ),
    # The same module in its lower power modes, by the clocks of the file that they name: the GPU at 612 and 918 MHz of
    # 1.02 GHz, to which the rates are in proportion, the memory at 2133 and 3199 MHz.
    "orin-nano-15w": Gpu(
        title="Jetson Orin Nano 8GB Super in its mode 15W",
        architecture="sm87",
        fp32_tflops=1.25,
        fp16_tflops=10.05,
        int8_tops=20.1,
        bandwidth_gbs=68.3,
        memory_gb=8,
        runtime=_TRT,
        source="NVIDIA Jetson Linux 36.4, nvpmodel_p3767_0003_super.conf",
        checked=True,
    ),
    "orin-nano-25w": Gpu(
        title="Jetson Orin Nano 8GB Super in its mode 25W",
        architecture="sm87",
        fp32_tflops=1.88,
        fp16_tflops=15.07,
        int8_tops=30.15,
        bandwidth_gbs=102,
        memory_gb=8,
        runtime=_TRT,
        source="NVIDIA Jetson Linux 36.4, nvpmodel_p3767_0003_super.conf",
        checked=True,
    ),
    # Of 100 sparse INT8 TOPS 60 are the GPU's; FP32 is 1024 cores x 2 at 918 MHz.
    "orin-nx": Gpu(
        title="Jetson Orin NX 16GB",
        architecture="sm87",
        fp32_tflops=1.9,
        fp16_tflops=15,
        int8_tops=30,
        bandwidth_gbs=102.4,
        memory_gb=16,
        runtime=_TRT,
        source="NVIDIA Jetson Orin NX Series datasheet",
        checked=False,
    ),
    # 170 sparse INT8 TOPS of the GPU alone, halved, and FP16 at half of that.
    "agx-orin": Gpu(
        title="Jetson AGX Orin 64GB",
        architecture="sm87",
        fp32_tflops=5.3,
        fp16_tflops=42.5,
        int8_tops=85,
        bandwidth_gbs=204.8,
        memory_gb=64,
        runtime=_TRT,
        source="NVIDIA Jetson AGX Orin Series Technical Brief",
        checked=True,
    ),
    # FP32 and bandwidth are the page's; tensor cores are those of the RTX 4090, at the same ratios to FP32.
    "rtx4060": Gpu(
        title="GeForce RTX 4060",
        architecture="sm89",
        fp32_tflops=15.1,
        fp16_tflops=30.2,
        int8_tops=120.9,
        fp8_tflops=60.4,
        bandwidth_gbs=272,
        memory_gb=8,
        runtime=_RTX,
        source="NVIDIA GeForce RTX 4060 product page",
        checked=True,
    ),
    "rtx4090": Gpu(
        title="GeForce RTX 4090",
        architecture="sm89",
        fp32_tflops=82.6,
        fp16_tflops=165.2,
        int8_tops=660.6,
        fp8_tflops=330.3,
        bandwidth_gbs=1008,
        memory_gb=24,
        runtime=_RTX,
        source="NVIDIA Ada GPU Architecture whitepaper",
        checked=True,
    ),
    "h100": Gpu(
        title="H100 SXM",
        architecture="sm90",
        fp32_tflops=67,
        fp16_tflops=989,
        int8_tops=1979,
        fp8_tflops=1979,
        bandwidth_gbs=3350,
        memory_gb=80,
        runtime=_TRT,
        source="NVIDIA H100 Tensor Core GPU datasheet",
        checked=True,
    ),
    # FP32, FP16 and FP8 with FP16 accumulation, and the bandwidth were found quoted; with FP32 accumulation it is half.
    "rtx5090": Gpu(
        title="GeForce RTX 5090",
        architecture="sm120",
        fp32_tflops=104.8,
        fp16_tflops=209.5,
        int8_tops=838,
        fp8_tflops=419,
        bandwidth_gbs=1792,
        memory_gb=32,
        runtime=_RTX,
        source="NVIDIA RTX Blackwell GPU Architecture whitepaper",
        checked=True,
    ),
}


ALIASES = {"orin": "agx-orin"}
"""Other names; a family's stands for its largest."""


def device(name: str) -> Gpu:
    """A device by name.

    Raises:
        EngineError: for an unknown one; the message lists those there are.
    """
    gpu = DEVICES.get(ALIASES.get(name, name))
    if gpu is None:
        raise EngineError(f"unknown GPU {name!r}; there are {', '.join(sorted(DEVICES))}")
    return gpu
