"""Values of callers that are kept for a while, in memory alone: bounded in bytes, and forgotten when not used."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

_SWEEPS = 20
"""Times that a shelf is looked through while an unused value may lie there."""


class Shelf(Generic[T]):
    """Values by key, each kept for some `seconds` after its last use. Threads may share a shelf.

    Those longest unused leave first when all of them take more than `memory` bytes; one that takes more by itself is
    not kept.
    """

    # By hand: TTLCache of cachetools counts from when a value came, and an edit that goes on would lose its photo.
    def __init__(self, memory: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._memory, self._seconds, self._clock = memory, seconds, clock
        self._values: OrderedDict[str, tuple[T, int, float]] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._values)

    @property
    def size(self) -> int:
        """Bytes of all that is kept."""
        with self._lock:
            return sum(size for _, size, _ in self._values.values())

    def put(self, key: str, value: T, size: int) -> None:
        """Keeps a value of so many bytes, in place of what the key had."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = (value, size, self._clock())
            while self.size > self._memory:
                self._values.popitem(last=False)

    def get(self, key: str) -> T | None:
        """The value, which counts as used; None if there is none, or no longer."""
        with self._lock:
            self.expire()
            if key not in self._values:
                return None
            value, size, _ = self._values.pop(key)
            self._values[key] = (value, size, self._clock())
            return value

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._values.clear()

    def expire(self) -> None:
        """Forgets what was not used for too long."""
        with self._lock:
            oldest = self._clock() - self._seconds
            while self._values and next(iter(self._values.values()))[2] <= oldest:
                self._values.popitem(last=False)

    @asynccontextmanager
    async def tended(self) -> AsyncIterator[None]:
        """Forgets in time, also when nobody asks; everything at the end."""

        async def tend() -> None:
            while True:
                await asyncio.sleep(max(self._seconds / _SWEEPS, 0.05))
                self.expire()

        task = asyncio.ensure_future(tend())
        try:
            yield
        finally:
            task.cancel()
            self.clear()
