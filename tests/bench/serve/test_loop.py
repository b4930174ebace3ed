from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.serve.loop import closed_loop, steady


@given(st.integers(1, 16), st.floats(0.001, 0.5), st.floats(0, 1), st.floats(1.2, 10), st.integers(1, 8))
def test_throughput_does_not_depend_on_where_the_window_falls(
    callers: int, period: float, begin: float, length: float, lag: int
) -> None:
    """Callers that are all answered at the same moment, as by a batch, are counted as what they are."""
    spans = [(k * period, (k + 1) * period) for k in range(int(12 / period) + lag)]
    found = steady([spans] * callers, begin, begin + length)
    assert found.throughput == pytest.approx(callers / period, rel=1e-6)
    assert found.latencies == pytest.approx([period * 1e3] * len(found.latencies))


def test_only_answers_in_the_window_count() -> None:
    found = steady([[(0.0, 1.0), (1.0, 2.0), (2.0, 3.0), (3.0, 9.0)]], 1.5, 4.0)
    assert found.latencies == [1e3, 1e3] and found.throughput == 1.0


def test_a_window_with_one_answer_or_none() -> None:
    assert steady([[(0.0, 1.0)]], 0.5, 2.5).throughput == 0.5
    assert steady([[]], 0.0, 1.0).throughput == 0.0 and steady([[]], 0.0, 1.0).latencies == []


def test_every_caller_has_a_thread_of_its_own_and_all_are_at_work() -> None:
    together = threading.Barrier(4, timeout=30)
    seen: set[int] = set()

    def call() -> None:
        # Passed only if all four are in a call at the same time.
        if len(seen) < 4:
            seen.add(threading.get_ident())
            together.wait()

    with ThreadPoolExecutor(4) as threads:
        found = closed_loop([call] * 4, 0.05, threads)
    assert len(seen) == 4 and found.throughput > 0 and found.latencies


def test_what_a_call_raises_is_raised_and_ends_all() -> None:
    calls = []

    def bad() -> None:
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("no server")

    with ThreadPoolExecutor(3) as threads, pytest.raises(RuntimeError, match="no server"):
        closed_loop([bad, lambda: None, lambda: None], 60.0, threads)


def test_a_first_call_that_fails_does_not_leave_the_others_waiting() -> None:
    def bad() -> None:
        raise RuntimeError("refused")

    with ThreadPoolExecutor(2) as threads, pytest.raises(RuntimeError, match="refused"):
        closed_loop([bad, lambda: None], 60.0, threads)
