"""A device: its description, its free memory, and its ceilings, beside which every time stands."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from bench.timing import Call, passes
from engines.bundle.provenance import provenance
from engines.cpus import threads as allowed
from engines.nvidia import nvidia_smi
from engines.runtimes.trt_engine import driver_version

COPY = "copy"

_CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit", "temperature.gpu")


def about(device: str, command: str) -> dict[str, Any]:
    """The device of a run, its driver and clocks, beside the host, versions, date and command."""
    facts: dict[str, Any] = provenance(command)
    facts["host"] = facts.pop("device")
    if device == "cpu":
        return facts | {"device": {"name": facts["host"], "kind": "cpu"}}
    import torch

    properties = torch.cuda.get_device_properties(device)
    gpu = {
        "name": properties.name,
        "kind": "cuda",
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_gb": properties.total_memory / 1e9,
        "multiprocessors": properties.multi_processor_count,
        "driver": driver_version() or nvidia_smi("driver_version").get("driver_version"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "clocks_before": clocks(device),
    }
    return facts | {"device": gpu}


def clocks(device: str) -> dict[str, str]:
    """Clocks (MHz), power limit (W) and temperature (°C) of a GPU; empty where nvidia-smi does not tell."""
    return nvidia_smi(*_CLOCKS) if device != "cpu" else {}


@dataclass(frozen=True)
class Ceiling:
    """The calls that show the most a device can do: copies of memory, and products of random matrices."""

    calls: dict[str, Call]
    """`COPY`, and a product by each library at hand. On a GPU they return before it is done."""
    copy_bytes: int
    matmul_size: int
    dtype: str

    def rates(self, samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """Copy bandwidth (bytes read and written), and the rate of products of the library that is fastest.

        Args:
            samples: milliseconds of the calls.
        """
        products = {name: statistics.median(samples[name]) for name in self.calls if name != COPY}
        by = min(products, key=lambda name: products[name])
        return {
            "copy_gbs": 2 * self.copy_bytes / statistics.median(samples[COPY]) / 1e6,
            "copy_bytes": self.copy_bytes,
            "matmul_tflops": 2 * self.matmul_size**3 / products[by] / 1e9,
            "matmul_size": self.matmul_size,
            "matmul_dtype": self.dtype,
            "matmul_by": by,
            "copy_ms": list(samples[COPY]),
            "matmul_ms": list(samples[by]),
        }


def ceilings(device: str) -> dict[str, Any]:
    """The rates of a device's `ceiling`, measured by themselves."""
    on_gpu = device != "cpu"
    one = ceiling(device)
    return one.rates(passes(one.calls, count=20 if on_gpu else 5, warm=5 if on_gpu else 1, device=device))


def ceiling(device: str, threads: int = 0) -> Ceiling:
    """Ceilings of copies and products: 1 GiB and 8192^3 in FP16 on a GPU, 256 MiB and 1024^3 in FP32 on a CPU.

    Args:
        device: "cpu" or a CUDA device.
        threads: on the CPU, see `engines.cpus.threads`.
    """
    if device == "cpu":
        return _of_host(allowed(threads))
    import torch

    count, size = 2**30, 8192
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (torch.randn(size, size, device=device, dtype=torch.float16) for _ in range(2))
    out = torch.empty_like(a)
    calls: dict[str, Call] = {
        COPY: lambda: target.copy_(source),
        "PyTorch": lambda: torch.matmul(a, b, out=out),
    }
    return Ceiling(calls, count, size, "float16")


def _of_host(threads: int) -> Ceiling:
    # Beyond any cache.
    count, size = 2**28, 1024
    source, target = (np.zeros(count, np.uint8) for _ in range(2))
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    pool = ThreadPoolExecutor(threads)
    calls: dict[str, Call] = {COPY: lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts))}
    return Ceiling(calls | _products(size, threads), count, size, "float32")


def _products(size: int, threads: int) -> dict[str, Call]:
    """A product of matrices by each library that is installed."""
    a, b = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    calls: dict[str, Call] = {}
    if importlib.util.find_spec("onnx"):
        from onnx import TensorProto, helper

        from engines.runtimes.ort import session

        x, y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in "xyz")
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "y"], ["z"])], "product", [x, y], [z])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        product = session(model.SerializeToString(), threads=threads)
        calls["ONNX Runtime"] = lambda: product.run(None, {"x": a, "y": b})
    if importlib.util.find_spec("torch"):
        import torch

        first, second = torch.from_numpy(a), torch.from_numpy(b)

        def multiply() -> None:
            # What is measured beside it has threads of its own.
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            torch.matmul(first, second)
            torch.set_num_threads(before)

        calls["PyTorch"] = multiply
    return calls or {"NumPy": lambda: np.matmul(a, b)}


def free_memory(device: str) -> int:
    """Bytes that a GPU has free once PyTorch keeps none in reserve, or that the host has."""
    if device != "cpu":
        import torch

        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
