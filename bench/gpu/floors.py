"""The distance of a row to the least that the card could take: rates measured on the card itself, work by `estimate`.

A floor is `engines.building.estimate.floor` with the card's own rates in place of a data sheet's: all products at the
rate of a large product of random matrices in the same precision, weights, inputs and outputs once at the bandwidth of a
copy, whichever takes longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from bench import machine
from bench.timing import passes
from engines.building import estimate
from engines.building.devices import Gpu
from engines.bundle.engine_manifest import Precision
from export.aot import precise

SIZE = 8192
"""Side of the matrices."""
_FP8 = (8, 9)
"""The first compute capability with FP8."""
_STORED: dict[str, Precision] = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16", "bf16": "fp16"}
"""The precision that takes as many bytes, by arithmetic of PyTorch."""


def ceilings(device: str) -> dict[str, Any]:
    """`machine.ceilings`, and under "products" the rate of matrix products in every precision of the card, TFLOP/s."""
    measured = machine.ceilings(device)
    if device == "cpu":
        return measured | {"products": {"fp32": measured["matmul_tflops"]}}
    rates: dict[str, float] = {}
    refused: dict[str, str] = {}
    for precision, make in _products(device).items():
        try:
            samples = passes({precision: make()}, count=10, warm=3, device=device)[precision]
        except RuntimeError as error:
            refused[precision] = " ".join(str(error).split())[:200]
            continue
        rates[precision] = 2 * SIZE**3 / sorted(samples)[len(samples) // 2] / 1e9
    return measured | {"products": rates, "products_refused": refused}


def _products(device: str) -> dict[str, Callable[[], Callable[[], Any]]]:
    """Makers of a product of random matrices, by precision: called one at a time, for the memory they take."""

    def random() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(SIZE, SIZE, device=device), torch.randn(SIZE, SIZE, device=device)

    def plain(dtype: torch.dtype, arithmetic: Any) -> Callable[[], Callable[[], Any]]:
        def make() -> Callable[[], Any]:
            a, b = (matrix.to(dtype) for matrix in random())

            def product() -> Any:
                with precise(arithmetic):
                    return torch.matmul(a, b)

            return product

        return make

    def fp8() -> Callable[[], Any]:
        a, b = (matrix.to(torch.float8_e4m3fn) for matrix in random())
        one = torch.ones((), device=device)
        return lambda: torch._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)  # type: ignore[attr-defined]

    def int8() -> Callable[[], Any]:
        a, b = (torch.randint(-128, 128, (SIZE, SIZE), dtype=torch.int8, device=device) for _ in range(2))
        return lambda: torch._int_mm(a, b.t())  # type: ignore[attr-defined]

    made = {
        "fp32": plain(torch.float32, "fp32"),
        "tf32": plain(torch.float32, "tf32"),
        "fp16": plain(torch.float16, "fp16"),
        "bf16": plain(torch.bfloat16, "bf16"),
        "int8": int8,
    }
    return made | ({"fp8": fp8} if torch.cuda.get_device_capability(device) >= _FP8 else {})


def floor(work: estimate.Work, measured: Mapping[str, Any], precision: str, batch: int = 1) -> estimate.Floor | None:
    """The floor of a graph in a precision on the card that ceilings were measured on; None without a rate for it.

    Args:
        work: of the graph.
        measured: by `ceilings`.
        precision: an arithmetic of PyTorch, or an engine's precision.
        batch: images at once.

    Example:
        >>> floor(work, ceilings("cuda"), "bf16").milliseconds
    """
    rate = measured.get("products", {}).get(precision)
    if rate is None:
        return None
    # One precision is read of it, whose rate stands in every field.
    card = Gpu(
        title="the card",
        architecture="",
        fp32_tflops=rate,
        fp16_tflops=rate,
        int8_tops=rate,
        fp8_tflops=rate,
        bandwidth_gbs=measured["copy_gbs"],
        memory_gb=0.0,
        runtime="",
        source="measured",
        checked=True,
    )
    stored: Any = _STORED.get(precision, precision)
    return estimate.floor(work, card, precision=stored, batch=batch)


def beside(work: estimate.Work, measured: Mapping[str, Any], precision: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The floor of a row of times, what sets it, and how many times longer than it the row took."""
    least = floor(work, measured, precision, int(row["batch"]))
    if least is None:
        return {"floor_ms": None, "bound": None, "times_floor": None}
    milliseconds = least.milliseconds
    return {"floor_ms": milliseconds, "bound": least.bound, "times_floor": row["median_ms"] / milliseconds}
