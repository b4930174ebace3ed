"""The progress of a batch, and how long the rest will take: an estimate from what was measured, or none yet."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

LEAST = 5
"""Groups of photos that are timed before there is an estimate."""
RECENT = 256
"""Groups that the estimate is made from at most, the last ones: what else a machine does changes."""
SURE = 0.2
"""The standard error of the mean time of a group, as a share of it, from which on there is none."""


class Estimate:
    """Seconds per photo, from the times between groups of photos that were worked on.

    Photos without a face, which are quick, count as they come; those whose results are there already do not. The time
    before the first group, in which networks are loaded, does not count either.

    Args:
        group: photos of a group: those of a batch come out together, and say nothing one by one.
        clock: seconds.
    """

    def __init__(self, group: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._group, self._clock = group, clock
        self._photos = 0
        self._last: float | None = None
        self._times: deque[float] = deque(maxlen=RECENT)

    def add(self) -> None:
        """Counts one photo more that was worked on."""
        self._photos += 1
        if self._photos % self._group:
            return
        now = self._clock()
        if self._last is not None:
            self._times.append(now - self._last)
        self._last = now

    @property
    def seconds(self) -> float | None:
        """Seconds per photo; None until `LEAST` groups are timed and their mean is known to within `SURE`."""
        if len(self._times) < LEAST:
            return None
        mean = fmean(self._times)
        error = stdev(self._times) / sqrt(len(self._times))
        return mean / self._group if error <= SURE * mean else None


@dataclass(frozen=True)
class Status:
    """The progress of a batch."""

    photos: int
    """The number of photos in all."""
    done: int
    """All of whose results are there."""
    failed: int
    present: int
    """The number of photos that were done before this run."""
    seconds_left: float | None
    """An estimate from the throughput of this run; None while that is not known."""
    photos_per_second: float | None
    """The rate of the photos that this run worked on; None while that is not known."""

    def __str__(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        left = ""
        if self.seconds_left is not None and self.photos_per_second is not None:
            left = f", {self.photos_per_second:.3g} photos/s, about {_spelt(self.seconds_left)} left"
        return f"{self.done + self.failed} of {self.photos} photos{failed}{left}"


def _spelt(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{0 if seconds >= 10 * size else 1}f} {unit}"
    return f"{seconds:.0f} s"
