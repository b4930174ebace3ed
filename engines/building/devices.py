"""What the vendor says of its devices: ceilings, memory, and which runtime serves them."""

from __future__ import annotations

from dataclasses import dataclass

from engines.errors import EngineError


@dataclass(frozen=True)
class Gpu:
    """One device. Rates are dense: structured sparsity is not counted."""

    title: str
    architecture: str
    fp16_tflops: float
    """FP16 products on tensor cores with FP32 accumulation, TFLOP/s."""
    fp32_tflops: float
    bandwidth_gbs: float
    """Memory bandwidth, GB/s."""
    memory_gb: float
    """Device memory, GB; on a Jetson the CPU shares it."""
    runtime: str
    """What builds for it."""

    def tflops(self, precision: str) -> float:
        """The rate of "fp16" or "fp32"."""
        return self.fp16_tflops if precision == "fp16" else self.fp32_tflops


_RTX, _TRT = "tensorrt-rtx", "tensorrt"

DEVICES: dict[str, Gpu] = {
    # NVIDIA Turing GPU Architecture whitepaper, table "GeForce RTX 2080 Ti", reference card.
    "rtx2080ti": Gpu("GeForce RTX 2080 Ti", "sm75", 53.8, 13.4, 616, 11, _RTX),
    # NVIDIA Tesla T4 datasheet; the FP16 figure is that of its tensor cores.
    "t4": Gpu("T4", "sm75", 65, 8.1, 320, 16, _TRT),
    # NVIDIA A100 Tensor Core GPU datasheet, 80 GB SXM.
    "a100": Gpu("A100 80GB SXM", "sm80", 312, 19.5, 2039, 80, _TRT),
    # NVIDIA Ampere GA102 GPU Architecture whitepaper, table of the GeForce RTX 30 series.
    "rtx3080": Gpu("GeForce RTX 3080 10GB", "sm86", 59.5, 29.8, 760, 10, _RTX),
    "rtx3090": Gpu("GeForce RTX 3090", "sm86", 71, 35.6, 936, 24, _RTX),
    # NVIDIA Jetson Orin Nano datasheet, 8 GB with the Super clocks: 33 dense INT8 TOPS, FP16 at half of that; FP32 is
    # 1024 cores x 2 at 1.02 GHz.
    "orin-nano": Gpu("Jetson Orin Nano 8GB Super", "sm87", 17, 2.1, 102, 8, _TRT),
    # NVIDIA Jetson Orin NX datasheet, 16 GB: of 100 sparse INT8 TOPS 60 are the GPU's, a quarter of that in dense FP16;
    # FP32 is 1024 cores x 2 at 918 MHz.
    "orin-nx": Gpu("Jetson Orin NX 16GB", "sm87", 15, 1.9, 102.4, 16, _TRT),
    # NVIDIA Jetson AGX Orin Series Technical Brief, 64 GB: 170 sparse INT8 TOPS of the GPU, a quarter of that in dense
    # FP16.
    "agx-orin": Gpu("Jetson AGX Orin 64GB", "sm87", 42.5, 5.3, 204.8, 64, _TRT),
    # NVIDIA GeForce RTX 4060 product page for FP32 and bandwidth; FP16 is twice FP32, as in the whitepaper's table of
    # the other GeForce cards of this architecture.
    "rtx4060": Gpu("GeForce RTX 4060", "sm89", 30.2, 15.1, 272, 8, _RTX),
    # NVIDIA Ada GPU Architecture whitepaper, table of the GeForce RTX 4090.
    "rtx4090": Gpu("GeForce RTX 4090", "sm89", 165.2, 82.6, 1008, 24, _RTX),
    # NVIDIA H100 Tensor Core GPU datasheet, SXM; the sparse figure halved.
    "h100": Gpu("H100 SXM", "sm90", 989, 67, 3350, 80, _TRT),
    # NVIDIA RTX Blackwell GPU Architecture whitepaper, table of the GeForce RTX 5090.
    "rtx5090": Gpu("GeForce RTX 5090", "sm120", 209.5, 104.8, 1792, 32, _RTX),
}


def device(name: str) -> Gpu:
    """A device by name.

    Raises:
        EngineError: for an unknown one; the message lists those there are.
    """
    if name not in DEVICES:
        raise EngineError(f"unknown device {name!r}; there are {', '.join(sorted(DEVICES))}")
    return DEVICES[name]
