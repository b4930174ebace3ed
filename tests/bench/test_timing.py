"""Who takes turns with whom, that every sample is kept, and what is said of samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.timing import passes, quartiles, rounds, summary


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
