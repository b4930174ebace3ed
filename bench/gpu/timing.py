"""Times of things that are compared: pass by pass in turn, so that clocks and heat meet all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


def passes(
    calls: Mapping[str, Callable[[], object]],
    *,
    count: int,
    warm: int,
    device: str,
    until: Callable[[], bool] = lambda: False,
) -> dict[str, list[float]]:
    """Milliseconds of every pass, by call.

    Args:
        calls: what is measured; each leaves its results on the device.
        count: passes of each.
        warm: passes before those.
        device: "cpu" or a CUDA device, which is timed by its own events.
        until: asked after every round; True ends it early, after one round at least.
    """
    for _ in range(warm):
        for call in calls.values():
            call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.synchronize(device)
    for _ in range(count):
        if on_gpu:
            events = {}
            for name, call in calls.items():
                events[name] = begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begun.record()
                call()
                ended.record()
            torch.cuda.synchronize(device)
            for name, (begun, ended) in events.items():
                samples[name].append(begun.elapsed_time(ended))
        else:
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                samples[name].append((time.perf_counter() - started) * 1e3)
        if until():
            break
    return samples


def host_passes(
    calls: Mapping[str, Callable[[], object]], *, count: int, warm: int, until: Callable[[], bool] = lambda: False
) -> dict[str, list[float]]:
    """As `passes`, for calls that return when their results are there: by the host's clock."""
    return passes(calls, count=count, warm=warm, device="cpu", until=until)
