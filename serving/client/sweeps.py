"""What sweeps and edits ask for."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral

import numpy as np

from serving.client.errors import RequestError
from serving.client.handle import Handle
from serving.client.wire import Profile, Request, edits_json, within_ranges

WINDOW = 8
"""Frames of one sweep that may be under way, or waiting to be taken, at most: the largest batch of the server."""

MAX_STEPS = 10_000


class Sweep:
    """The frames of one direction between two strengths.

    Raises:
        RequestError: for arguments that cannot be.
    """

    def __init__(self, handle: Handle, direction: str, start: float, stop: float, steps: int) -> None:
        if isinstance(steps, bool) or not isinstance(steps, Integral) or not 1 <= steps <= MAX_STEPS:
            raise RequestError(f"steps must be a number from 1 to {MAX_STEPS}, got {steps!r}")
        for strength in (start, stop):
            edits_json({direction: strength})
        self.handle = handle
        self.direction = direction
        self.strengths: list[float] = np.linspace(float(start), float(stop), int(steps)).tolist()

    def __len__(self) -> int:
        return len(self.strengths)

    def request(self, profile: Profile, index: int) -> Request:
        """The request of one frame."""
        return Request(profile.shape, handle=self.handle.id, edits=edits_json({self.direction: self.strengths[index]}))

    def warn(self, profile: Profile) -> None:
        """Warns, once for each end, of strengths outside the direction's usable range."""
        for strength in dict.fromkeys((self.strengths[0], self.strengths[-1])):
            within_ranges(profile, {self.direction: strength}, clamp=False)


def merged(edits: Mapping[str, float] | None, strengths: Mapping[str, float]) -> dict[str, float]:
    """Edits given as a mapping and as keywords.

    Raises:
        RequestError: for a direction given twice, or no mapping.
    """
    if edits is not None and not isinstance(edits, Mapping):
        raise RequestError(f"edits are strengths by direction, such as {{'smile': 2}}, got {edits!r}")
    both = dict(edits or {})
    for name, strength in strengths.items():
        if name in both:
            raise RequestError(f"direction {name!r} is given twice; give one strength for it")
        both[name] = strength
    return both
