from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.serve.loop import Slice
from bench.serve.statistics import IN_PROCESS, Cell, added, aims, compare, row, summary, thin


def test_percentiles_of_a_hundred_known_latencies() -> None:
    found = summary(list(range(1, 101)))
    assert found == pytest.approx({"p50_ms": 50.5, "p95_ms": 95.05, "p99_ms": 99.01, "mean_ms": 50.5})


def test_nothing_measured_is_an_error_and_not_a_row() -> None:
    with pytest.raises(ValueError, match="no samples"):
        row(Cell("edit", "grpc", "on", 1), [Slice([], 0.0)], 1, 10)


@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=300), st.integers(1, 50))
def test_kept_samples_are_bounded_in_order_and_cover_the_run(samples: list[float], limit: int) -> None:
    kept = thin(samples, limit)
    assert 1 <= len(kept) <= limit and kept[0] == round(samples[0], 3)
    rounded = iter([round(sample, 3) for sample in samples])
    assert all(sample in rounded for sample in kept)
    # None of the run's ends is left out by more than the step.
    assert len(kept) * 2 > min(limit, len(samples)) or len(samples) <= limit * 2


def test_a_row_pools_latencies_and_averages_rates() -> None:
    found = row(Cell("edit", IN_PROCESS, "on", 8), [Slice([10.0, 20.0], 5.0), Slice([30.0], 7.0)], 8, 2)
    assert found["calls"] == 3 and found["p50_ms"] == 20.0
    assert found["images_per_second"] == 48.0 and found["rounds"]["images_per_second"] == [40.0, 56.0]
    assert found["rounds"]["p50_ms"] == [15.0, 30.0] and found["samples_ms"] == [10.0, 30.0]


def test_a_round_without_an_answer_does_not_spoil_the_row() -> None:
    found = row(Cell("edit", "http", "off", 16), [Slice([], 0.0), Slice([4.0], 2.0)], 1, 9)
    assert found["rounds"]["p50_ms"] == [None, 4.0]


def test_added_is_relative_to_the_other_row() -> None:
    own, base = {"p50_ms": 10.5, "images_per_second": 90.0}, {"p50_ms": 10.0, "images_per_second": 100.0}
    assert added(own, base) == {"p50_ms": 0.5, "p50_percent": 5.0, "throughput_percent": 90.0}


def _rows(shm_ms: float, shm_rate: float) -> list[dict[str, Any]]:
    def one(way: str, batching: str, callers: int, ms: float, rate: float) -> dict[str, Any]:
        return row(Cell("edit", way, batching, callers), [Slice([ms] * 3, rate)], 1, 5)

    return [
        one(IN_PROCESS, "off", 1, 10.0, 100.0),
        one(IN_PROCESS, "on", 1, 10.0, 100.0),
        one(IN_PROCESS, "off", 8, 60.0, 130.0),
        one(IN_PROCESS, "on", 8, 64.0, 125.0),
        one("shm", "on", 1, shm_ms, 1000 / shm_ms),
        one("shm", "on", 8, 70.0, shm_rate),
    ]


@pytest.mark.parametrize(
    ("shm_ms", "shm_rate", "met"),
    [(10.4, 120.0, [True, True]), (10.6, 120.0, [False, True]), (10.4, 118.0, [True, False])],
)
def test_aims_are_met_or_not_by_their_own_rows(shm_ms: float, shm_rate: float, met: list[bool]) -> None:
    rows = _rows(shm_ms, shm_rate)
    compare(rows)
    found = aims(rows)
    assert [aim["met"] for aim in found] == met
    assert found[0]["reached"] == pytest.approx(10 * (shm_ms - 10))
    # The second is of batches in process, not of eight callers that compute their own.
    assert found[1]["reached"] == pytest.approx(100 * shm_rate / 125)
    assert found[0]["by_round"] == [found[0]["reached"]]


def test_servers_are_compared_at_their_own_concurrency() -> None:
    rows = _rows(12.0, 100.0)
    compare(rows)
    assert "over_single" not in rows[0]
    assert rows[4]["over_single"]["p50_ms"] == 2.0 and rows[5]["over_single"]["p50_ms"] == 10.0


def test_aims_that_were_not_measured_are_left_out() -> None:
    rows = [one for one in _rows(10.0, 125.0) if one["way"] == IN_PROCESS]
    compare(rows)
    assert aims(rows) == []
