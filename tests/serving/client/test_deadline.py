from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.client.deadline import LONGEST_DELAY, Deadline, pauses
from serving.client.errors import DeadlineError


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_counts_down_and_then_says_how_long_the_call_had() -> None:
    clock = Clock()
    deadline = Deadline(2.5, clock)
    clock.now += 2.0
    assert deadline.left() == 0.5
    clock.now += 0.5
    with pytest.raises(DeadlineError, match=r"no answer within 2\.5 s"):
        deadline.left()


units = st.floats(0, 1)


@given(retries=st.integers(0, 12), seconds=st.floats(0.01, 60), work=st.lists(st.floats(0, 3), min_size=13), unit=units)
def test_no_repetition_starts_after_the_deadline(retries: int, seconds: float, work: list[float], unit: float) -> None:
    clock = Clock()
    delays = pauses(retries, Deadline(seconds, clock), lambda: unit)
    end = clock.now + seconds
    made = 0
    for took in work:
        clock.now += took
        delay = next(delays, None)
        if delay is None:
            break
        clock.now += delay
        made += 1
        assert clock.now < end
    assert made <= retries


@given(first=units, second=units)
def test_delays_grow_to_a_bound_and_differ_between_clients(first: float, second: float) -> None:
    deadline = Deadline(1e5, Clock())
    delays = []
    for unit in (first, second):
        again = pauses(20, deadline, lambda unit=unit: unit)
        delays.append([next(again, None) for _ in range(21)])
        assert delays[-1].pop() is None
        assert all(a <= b for a, b in zip(delays[-1], delays[-1][1:], strict=False))
        assert 0.05 <= delays[-1][0] <= 0.1 and LONGEST_DELAY / 2 <= delays[-1][-1] <= LONGEST_DELAY
    if abs(first - second) > 0.01:
        assert all(a != b for a, b in zip(*delays, strict=True))
