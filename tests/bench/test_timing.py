"""Who takes turns with whom, that every sample is kept, and what is said of samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.timing import interval, passes, quartiles, rounds, speedups, summary, warmed


def recorder(names: str) -> tuple[list[str], dict[str, tuple]]:
    """Calls of two stages that write down when they ran."""
    ran: list[str] = []
    return ran, {name: tuple(lambda s=f"{name}{i}": ran.append(s) for i in (1, 2)) for name in names}


def test_every_round_takes_each_call_once_in_an_order_of_its_own() -> None:
    ran, calls = recorder("abcdef")
    ended: list[str] = []
    found = rounds(calls, count=20, device="cpu", seed=3, after=ended.append)
    assert ran == [f"{name}{i}" for order in found.orders for name in order for i in (1, 2)]
    assert ended == [name for order in found.orders for name in order]
    assert all(sorted(order) == list("abcdef") for order in found.orders)
    assert len({tuple(order) for order in found.orders}) > 10
    again = rounds(recorder("abcdef")[1], count=20, device="cpu", seed=3)
    other = rounds(recorder("abcdef")[1], count=20, device="cpu", seed=4)
    assert again.orders == found.orders != other.orders


def test_every_sample_is_kept_by_round_and_stage() -> None:
    found = rounds(recorder("ab")[1], count=7, device="cpu")
    assert list(found.samples) == ["a", "b"]
    for samples in found.samples.values():
        assert len(samples) == 7 and all(len(stages) == 2 and min(stages) >= 0 for stages in samples)


@pytest.mark.parametrize(("enough", "left"), [(1, 1), (3, 3), (9, 5)])
def test_rounds_and_passes_end_early_but_whole(enough: int, left: int) -> None:
    def until() -> bool:
        asked.append(None)
        return len(asked) >= enough

    asked: list[None] = []
    found = rounds(recorder("abc")[1], count=5, device="cpu", until=until)
    assert [len(samples) for samples in found.samples.values()] == [left] * 3 and len(found.orders) == left
    asked.clear()
    plain = passes({"a": lambda: None, "b": lambda: None}, count=5, warm=0, device="cpu", until=until)
    assert [len(samples) for samples in plain.values()] == [left] * 2


def test_passes_of_the_warm_up_are_not_samples() -> None:
    ran: list[str] = []
    found = passes({name: lambda name=name: ran.append(name) for name in "ab"}, count=3, warm=2, device="cpu")
    assert ran == list("ab") * 5 and [len(samples) for samples in found.values()] == [3, 3]


def test_a_summary_worked_by_hand() -> None:
    found = summary([5.0, 1.0, 2.0, 100.0, 3.0])
    assert (found["median_ms"], found["iqr_ms"], found["mad_ms"]) == (3.0, 3.0, 2.0)
    assert (found["p10_ms"], found["p90_ms"], found["passes"]) == (1.0, 100.0, 5)
    assert found["samples_ms"] == [5.0, 1.0, 2.0, 100.0, 3.0]
    alone = summary([4.0])
    assert (alone["median_ms"], alone["iqr_ms"], alone["mad_ms"]) == (4.0, 0.0, 0.0)


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=40))
def test_spread_lies_within_the_samples(samples: list[float]) -> None:
    found = summary(samples)
    low, high = quartiles(samples)
    assert min(samples) <= low <= found["median_ms"] <= high <= max(samples)
    assert 0 <= found["mad_ms"] <= max(samples) - min(samples)


def test_warming_up_ends_with_the_first_round_in_which_nobody_got_faster() -> None:
    def run(costs: dict[str, list[float]]) -> int:
        def passing(name: str) -> None:
            clock[0] += left[name].pop(0)

        left = {name: list(times) for name, times in costs.items()}
        clock = [0.0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bench.timing.time.perf_counter", lambda: clock[0])
            calls = {name: (lambda name=name: passing(name),) for name in costs}
            found = warmed(calls, most=8, device="cpu")
        assert {len(samples) for samples in found.samples.values()} == {len(found.orders)}
        return len(found.orders)

    assert run({"a": [9.0] + [1.0] * 7, "b": [1.0] * 8}) == 3
    # Slower again is not cold, and a twentieth less is noise.
    assert run({"a": [1.0, 5.0] + [1.0] * 6}) == 2 and run({"a": [1.0, 0.96] + [1.0] * 6}) == 2
    assert run({"a": [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]}) == 8


@pytest.mark.parametrize(("count", "ranks"), [(6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (10, (2, 9)), (20, (6, 15))])
def test_the_interval_of_a_median_has_the_ranks_of_the_tables(count: int, ranks: tuple[int, int]) -> None:
    samples = [float(i + 1) for i in range(count)]
    assert interval(samples[::-1]) == ranks


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_samples_have_no_interval(count: int) -> None:
    assert interval([1.0] * count) is None


def test_speedups_are_taken_within_rounds() -> None:
    assert speedups([1.0, 2.0, 4.0], [2.0, 4.0, 4.0]) == [2.0, 2.0, 1.0]
