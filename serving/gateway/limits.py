"""Rates per key, a bounded queue, and a pool of threads that is never queued without bound."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import ParamSpec, TypeVar

from serving.gateway.problems import busy

P = ParamSpec("P")
T = TypeVar("T")

_MAX_BUCKETS = 10_000


class RateLimiter:
    """A token bucket per key: at most `burst` tokens, 1 or more; `rate` more every second; one for each request."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Takes a token of the key's bucket.

        Returns:
            0 if there was one, else the seconds until there will be.
        """
        now = self._clock()
        tokens, then = self._buckets.pop(key, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - then) * self._rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[key] = (tokens if wait else tokens - 1, now)
        if len(self._buckets) > _MAX_BUCKETS:
            # The one longest unused, which has most likely filled up again.
            self._buckets.popitem(last=False)
        return wait


class Admission:
    """A bounded queue: `running` requests work, `waiting` more may be here, `per_key` of one key at most.

    Nothing ever waits to get in: who finds it full is refused at once.
    """

    def __init__(self, running: int, waiting: int, per_key: int) -> None:
        self._limit, self._running, self._per_key = running + waiting, running, per_key
        self._turns = asyncio.Semaphore(running)
        self._inside: Counter[str] = Counter()
        self._seconds = 0.5
        self.working = 0

    @property
    def inside(self) -> int:
        """Requests that were admitted and have not left."""
        return self._inside.total()

    @contextmanager
    def admit(self, key: str) -> Iterator[None]:
        """Holds a place while the request is here.

        Raises:
            Problem: if there is none: 429 where the key's own share is used up, else 503.
        """
        if self._inside[key] >= self._per_key:
            detail = "too many requests with this key are under way; wait for their answers"
            raise busy(429, "key-busy", detail, self._estimate(self._inside[key]))
        if self.inside >= self._limit:
            raise busy(503, "overloaded", "the gateway is full; try again later", self._estimate(self.inside))
        self._inside[key] += 1
        try:
            yield
        finally:
            self._inside[key] -= 1
            if not self._inside[key]:
                del self._inside[key]

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for one of the running places, first come first served; cancel it to leave the queue."""
        async with self._turns:
            began = time.monotonic()
            self.working += 1
            try:
                yield
            finally:
                self.working -= 1
                self._seconds += 0.1 * (time.monotonic() - began - self._seconds)

    def _estimate(self, ahead: int) -> int:
        """Whole seconds in which so many requests will have gone, from how long they took lately."""
        return min(30, max(1, math.ceil(ahead * self._seconds / self._running)))


class CpuPool:
    """Threads for what would block the event loop: decoding, aligning, encoding.

    A caller that is cancelled leaves at once; the thread it occupied counts as taken until it is done, so that callers
    that come and go cannot pile up work.
    """

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="gateway")
        self._free = asyncio.Semaphore(workers)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` in a thread once one is free, and returns or raises as it does."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        try:
            future = self._threads.submit(work, *args, **kwargs)
        except BaseException:
            self._free.release()
            raise

        def release(_: object) -> None:
            # The loop may be gone when the last thread of a stopped gateway ends.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._free.release)

        future.add_done_callback(release)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Takes no more work; threads that run end by themselves."""
        self._threads.shutdown(wait=False, cancel_futures=True)
