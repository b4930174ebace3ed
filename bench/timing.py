"""Times of things that are compared: pass by pass in turn, so that clocks and heat meet all of them alike."""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Call = Callable[[], object]

STEADY = 0.95
"""A share of the shortest time so far: a call that takes less is still warming up."""


def passes(
    calls: Mapping[str, Call],
    *,
    count: int,
    warm: int,
    device: str,
    until: Callable[[], bool] = lambda: False,
) -> dict[str, list[float]]:
    """Milliseconds of every pass, by call. On a GPU the calls of a round are queued one behind the other.

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
    synchronize(device)
    for _ in range(count):
        marks = {name: _marked((call,), device) for name, call in calls.items()}
        synchronize(device)
        for name, mark in marks.items():
            samples[name] += _between(mark)
        if until():
            break
    return samples


@dataclass
class Rounds:
    """The samples of `rounds`."""

    samples: dict[str, list[tuple[float, ...]]]
    """Milliseconds by call, one tuple of its stages for every round."""
    orders: list[list[str]] = field(default_factory=list)
    """The order in which the calls were taken, by round."""


def rounds(
    calls: Mapping[str, Sequence[Call]],
    *,
    count: int,
    device: str,
    seed: int = 0,
    until: Callable[[], bool] = lambda: False,
    after: Callable[[str], None] = lambda name: None,
) -> Rounds:
    """Rounds of calls in stages, in an order that is drawn anew for every round; each call begins on an idle device.

    Args:
        calls: by name, stages that run one behind the other; the times of the stages add up to that of the call.
        count: rounds.
        device: "cpu" (the host's clock, for stages that return when their results are there) or a CUDA device.
        seed: of the orders.
        until: asked after every round; True ends it early, after one round at least.
        after: told the name of every call that has ended.
    """
    source = random.Random(seed)
    result = Rounds({name: [] for name in calls})
    for _ in range(count):
        order = list(calls)
        source.shuffle(order)
        result.orders.append(order)
        for name in order:
            synchronize(device)
            marks = _marked(calls[name], device)
            synchronize(device)
            result.samples[name].append(tuple(_between(marks)))
            after(name)
        if until():
            break
    return result


def warmed(
    calls: Mapping[str, Sequence[Call]], *, most: int, device: str, until: Callable[[], bool] = lambda: False
) -> Rounds:
    """Rounds up to the first in which no call was faster than `STEADY` times its shortest time before: two at least.

    What is slower than before for another reason than being cold, such as another program, prolongs nothing.

    Args:
        calls: as of `rounds`.
        most: rounds, at most.
        device: as of `rounds`.
        until: as of `rounds`.
    """
    result = Rounds({name: [] for name in calls})
    shortest = dict.fromkeys(calls, math.inf)
    for number in range(most):
        one = rounds(calls, count=1, device=device, seed=number)
        result.orders += one.orders
        times = {name: sum(samples[0]) for name, samples in one.samples.items()}
        for name, samples in one.samples.items():
            result.samples[name] += samples
        cold = any(times[name] < STEADY * shortest[name] for name in calls)
        shortest = {name: min(shortest[name], times[name]) for name in calls}
        if not cold or until():
            break
    return result


def synchronize(device: str) -> None:
    """Waits for a GPU."""
    if device != "cpu":
        # Not at the top: what runs without PyTorch is timed without it.
        import torch

        torch.cuda.synchronize(device)


def waiting(call: Call, device: str) -> Call:
    """The call with a wait for what it has begun on a GPU, to be timed by the host's clock."""

    def run() -> None:
        call()
        synchronize(device)

    return run


def _marked(stages: Sequence[Call], device: str) -> list[Any]:
    """Marks in time before, between and after the stages: events of a GPU, or the host's seconds."""
    marks = [_mark(device)]
    for stage in stages:
        stage()
        marks.append(_mark(device))
    return marks


def _mark(device: str) -> Any:
    if device == "cpu":
        return time.perf_counter()
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(marks: Sequence[Any]) -> list[float]:
    """Milliseconds from mark to mark; a GPU must have reached them."""
    pairs = itertools.pairwise(marks)
    return [(b - a) * 1e3 if isinstance(a, float) else a.elapsed_time(b) for a, b in pairs]


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Median with its 95 % interval, and spread of milliseconds, with all of them.

    The interquartile range and the median absolute deviation do not mind a few passes that something disturbed.
    """
    median = statistics.median(samples)
    low, high = quartiles(samples)
    p10, p90 = np.percentile(samples, (10, 90), method="nearest").tolist()
    within = interval(samples)
    return {
        "median_ms": median,
        "interval_ms": list(within) if within else None,
        "iqr_ms": high - low,
        "mad_ms": statistics.median(abs(sample - median) for sample in samples),
        "p10_ms": p10,
        "p90_ms": p90,
        "passes": len(samples),
        "samples_ms": [round(sample, 5) for sample in samples],
    }


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile, interpolated."""
    low, high = np.percentile(samples, (25, 75)).tolist()
    return low, high


def interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Bounds between which the median lies with that confidence: two of the samples, whatever they are distributed as.

    These are the order statistics k and n + 1 - k, where k is the largest with P(B < k) <= (1 - confidence) / 2 for B
    binomial of n and 1/2; see David and Nagaraja, Order Statistics, section 7.1. None for fewer samples than bounds
    exist for, which at 95 % is 6.

    Example:
        >>> interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
        (1.0, 6.0)
    """
    ordered, count = sorted(samples), len(samples)
    outside, rank = 1.0, 0
    while rank < count and outside <= (1 - confidence) / 2 * 2**count:
        rank += 1
        outside += math.comb(count, rank)
    return (ordered[rank - 1], ordered[count - rank]) if rank else None


def speedups(samples: Sequence[float], base: Sequence[float]) -> list[float]:
    """The speedups of a call over the base, round by round: both met the same clocks and heat there."""
    return [other / sample for sample, other in zip(samples, base, strict=True)]
