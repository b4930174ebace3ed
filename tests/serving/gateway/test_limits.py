from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.limits import Admission, CpuPool, RateLimiter
from serving.gateway.problems import Problem

pytestmark = pytest.mark.anyio


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 20),
    steps=st.lists(st.floats(0, 3), min_size=1, max_size=80),
)
def test_no_window_lets_more_through_than_burst_and_rate(rate: float, burst: int, steps: list[float]) -> None:
    now = 0.0
    limiter = RateLimiter(rate, burst, lambda: now)
    passed: list[float] = []
    for step in steps:
        now += step
        wait = limiter.take("key")
        assert wait >= 0
        if not wait:
            passed.append(now)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + (passed[last] - start) * rate + 1e-6


@given(rate=st.floats(0.1, 100), burst=st.integers(1, 20))
def test_who_waits_as_long_as_told_gets_through(rate: float, burst: int) -> None:
    now = 0.0
    limiter = RateLimiter(rate, burst, lambda: now)
    for _ in range(burst):
        assert limiter.take("key") == 0
    wait = limiter.take("key")
    assert wait > 0
    assert limiter.take("other") == 0
    now += wait * (1 + 1e-9)
    assert limiter.take("key") == 0


def test_buckets_of_many_callers_are_bounded() -> None:
    limiter = RateLimiter(1, 1)
    for number in range(12_000):
        limiter.take(str(number))
    assert len(limiter._buckets) == 10_000


async def test_the_queue_refuses_at_once_and_frees_its_places() -> None:
    admission = Admission(running=1, waiting=1, per_key=2)
    with admission.admit("a"), admission.admit("b"):
        with pytest.raises(Problem) as full, admission.admit("c"):
            pass
        assert (full.value.status, full.value.kind) == (503, "overloaded")
        assert int(full.value.headers["Retry-After"]) >= 1
    assert admission.inside == 0
    with admission.admit("c"):
        pass


async def test_one_key_leaves_room_for_others() -> None:
    admission = Admission(running=4, waiting=4, per_key=2)
    with admission.admit("a"), admission.admit("a"):
        with pytest.raises(Problem) as full, admission.admit("a"):
            pass
        assert (full.value.status, full.value.kind) == (429, "key-busy")
        with admission.admit("b"):
            pass


async def test_turns_are_bounded_and_a_cancelled_wait_costs_none() -> None:
    admission = Admission(running=2, waiting=9, per_key=9)
    most = 0

    async def work() -> None:
        nonlocal most
        async with admission.turn():
            most = max(most, admission.working)
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(work()) for _ in range(9)]
    await asyncio.sleep(0)
    tasks[5].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 2 and admission.working == 0
    await asyncio.wait_for(work(), 30)


async def test_a_caller_that_leaves_still_counts_until_its_thread_is_done() -> None:
    pool = CpuPool(1)
    begun, go = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go.wait(30)

    first = asyncio.create_task(pool.run(block))
    assert await asyncio.to_thread(begun.wait, 30)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(pool.run(lambda: "done"))
    await asyncio.sleep(0.05)
    assert not second.done()
    go.set()
    assert await asyncio.wait_for(second, 30) == "done"
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    assert await asyncio.wait_for(pool.run(lambda: 2), 30) == 2
    pool.close()
