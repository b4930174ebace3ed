"""What a device is, what it has free, and what it can do at most: the ceilings that every time stands beside."""

from __future__ import annotations

import shutil
import statistics
import subprocess
from typing import Any

import psutil
import torch

from bench.timing import passes
from engines.bundle.provenance import provenance
from engines.runtimes.trt_engine import driver_version

_CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.limit", "temperature.gpu")


def describe(device: str, command: str) -> dict[str, Any]:
    """What the results of a run say of it: device, driver, clocks, versions, date, command, ceilings."""
    told = about(device, command)
    told["ceilings"] = ceilings(device)
    if device != "cpu":
        # Under load they say more than at rest.
        told["device"]["clocks_after_ceilings"] = clocks(device)
    return told


def about(device: str, command: str) -> dict[str, Any]:
    """As `describe`, but for what has to be measured."""
    told: dict[str, Any] = provenance(command)
    told["host"] = told.pop("device")
    if device == "cpu":
        return told | {"device": {"name": told["host"], "kind": "cpu"}}
    found = torch.cuda.get_device_properties(device)
    gpu = {
        "name": found.name,
        "kind": "cuda",
        "compute_capability": f"{found.major}.{found.minor}",
        "memory_gb": found.total_memory / 1e9,
        "multiprocessors": found.multi_processor_count,
        "driver": driver_version() or nvidia_smi("driver_version").get("driver_version"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "clocks_before": clocks(device),
    }
    return told | {"device": gpu}


def clocks(device: str) -> dict[str, str]:
    """Clocks (MHz), power limit (W) and temperature (°C) of a GPU; empty where nvidia-smi does not tell."""
    return nvidia_smi(*_CLOCKS) if device != "cpu" else {}


def nvidia_smi(*fields: str) -> dict[str, str]:
    """Fields of the first GPU by name; empty where nvidia-smi does not tell."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")] if done.stdout else []
    return dict(zip(fields, values, strict=False))


def ceilings(device: str) -> dict[str, Any]:
    """Copy bandwidth of the device's memory (bytes read and written) and its rate of products of random matrices.

    On a GPU 1 GiB and 8192^3 in FP16; on a CPU little, in FP32, since it stands in for one in tests alone.
    """
    on_gpu = device != "cpu"
    count, size, dtype = (2**30, 8192, torch.float16) if on_gpu else (2**24, 256, torch.float32)
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    copied, multiplied = passes(
        {"copy": lambda: target.copy_(source), "matmul": lambda: torch.matmul(a, b, out=out)},
        count=20 if on_gpu else 5,
        warm=5 if on_gpu else 1,
        device=device,
    ).values()
    milliseconds = statistics.median(copied), statistics.median(multiplied)
    return {
        "copy_gbs": 2 * count / milliseconds[0] / 1e6,
        "copy_bytes": count,
        "matmul_tflops": 2 * size**3 / milliseconds[1] / 1e9,
        "matmul_size": size,
        "matmul_dtype": str(dtype).removeprefix("torch."),
        "copy_ms": copied,
        "matmul_ms": multiplied,
    }


def free_memory(device: str) -> int:
    """Bytes that a GPU has free once PyTorch keeps none in reserve, or that the host has."""
    if device != "cpu":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
