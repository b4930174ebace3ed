"""A closed loop: a fixed number of callers, each of which asks again as soon as it is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, wait
from dataclasses import dataclass

Span = tuple[float, float]
"""Seconds of the clock at which a call began and ended."""

_LEAST = 3
"""Answers for every caller, so that its rate can be told."""


@dataclass(frozen=True)
class Slice:
    """The calls of one stretch of measuring."""

    latencies: list[float]
    """Milliseconds of the calls that ended in the window, in the order in which they did."""
    throughput: float
    """Calls per second."""


def steady(spans: Sequence[Sequence[Span]], begin: float, end: float) -> Slice:
    """The calls between two moments at which all callers were at work.

    A caller's rate is taken from its first answer in the window to its last: counting answers would be wrong by up to
    a whole batch, since those of a batch come together.

    Args:
        spans: by caller, in order.
        begin, end: of the window.
    """
    counted: list[Span] = []
    throughput = 0.0
    for own in spans:
        within = [span for span in own if begin <= span[1] <= end]
        counted += within
        first, last = (within[0][1], within[-1][1]) if within else (0.0, 0.0)
        # A caller that was answered once or never, as in a window that is too short, is counted by the window.
        throughput += (len(within) - 1) / (last - first) if last > first else len(within) / (end - begin)
    counted.sort(key=lambda span: span[1])
    return Slice([(stop - start) * 1e3 for start, stop in counted], throughput)


def closed_loop(calls: Sequence[Callable[[], object]], seconds: float, threads: Executor) -> Slice:
    """Has every call made over and over by a thread of its own.

    Args:
        calls: one per caller.
        seconds: for how long, from when every caller has been answered once; longer if one of them waits so long.
        threads: at least as many as callers, idle.

    Raises:
        Exception: whatever a call raises.
    """
    spans: list[list[Span]] = [[] for _ in calls]
    stop, warm = threading.Event(), threading.Semaphore(0)

    def work(call: Callable[[], object], own: list[Span]) -> None:
        try:
            call()
            warm.release()
            while not stop.is_set():
                start = time.perf_counter()
                call()
                own.append((start, time.perf_counter()))
        except BaseException:
            stop.set()
            raise
        finally:
            warm.release()

    futures = [threads.submit(work, call, own) for call, own in zip(calls, spans, strict=True)]
    try:
        for _ in calls:
            warm.acquire()
        begin = time.perf_counter()
        stop.wait(seconds)
        # One of these may have begun before the window did.
        while not stop.is_set() and min(map(len, spans)) < _LEAST:
            stop.wait(0.01)
        end = time.perf_counter()
    finally:
        stop.set()
        wait(futures)
    for future in futures:
        future.result()
    return steady(spans, begin, end)
