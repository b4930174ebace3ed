"""The time that a call may take, and the pauses before it is made again."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from numbers import Real

from serving.client.errors import DeadlineError, RequestError

FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0
"""Seconds before the first repetition, and at most before any."""


LONGEST = 1e6
"""Seconds that a call may take at most."""


class Deadline:
    """The point in time, `seconds` from now, at which a call must be over, waiting and repetitions included.

    Raises:
        RequestError: for a time that is not above zero.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, Real) or not 0 < seconds <= LONGEST:
            raise RequestError(f"timeout must be seconds above 0, got {seconds!r}")
        self.seconds = float(seconds)
        self._clock = clock
        self._end = clock() + self.seconds

    def left(self) -> float:
        """Seconds left, above zero; a DeadlineError if none are."""
        left = self._end - self._clock()
        if not left > 0:
            raise self.error()
        return left

    def allows(self, seconds: float) -> bool:
        """Whether more than so many seconds are left."""
        return seconds < self._end - self._clock()

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Cancels what runs in it when no time is left, and raises a DeadlineError then."""
        try:
            async with asyncio.timeout(self.left()):
                yield
        except TimeoutError:
            raise self.error() from None

    def error(self) -> DeadlineError:
        """The error of a call whose time is over."""
        return DeadlineError(f"no answer within {self.seconds:g} s; give the call a longer timeout or lower the load")


def pauses(retries: int, deadline: Deadline, random_unit: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds to wait before a call is made again: half to all of 0.1, 0.2, 0.4 .. 2, so that clients come at different
    moments. There are at most `retries`, and none after which the call could not start in time."""
    for made in range(retries):
        longest = min(LONGEST_DELAY, math.ldexp(FIRST_DELAY, min(made, 10)))
        delay = longest * (0.5 + 0.5 * random_unit())
        if not deadline.allows(delay):
            return
        yield delay
