"""Rows of a run, their order and arithmetic, and what becomes of methods that cannot be measured."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Any

import pytest

from bench.table5 import alone, times
from bench.table5.subjects import Setting
from bench.table5.times import NO_TIME, check_fits, chosen, measure, steps
from engines.cpus import usable
from engines.errors import EdgeditError
from tests.bench.table5.conftest import SMALL, SMALL_CARS
from training.methods import COMPARED

EAGER = Setting(family=SMALL, seed=5)


class Stub:
    """A method that does nothing, and says so in the order in which it is asked."""

    memory = None

    def __init__(self, key: str, ran: list[str], good: bool = True) -> None:
        self.key, self.ran, self.good = key, ran, good

    def invert(self) -> None:
        self.ran.append(f"{self.key} invert")

    def edit(self) -> None:
        self.ran.append(f"{self.key} edit")

    def finite(self) -> bool:
        return self.good


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All methods are stubs; what they did."""
    ran: list[str] = []
    monkeypatch.setattr(alone, "prepare", lambda key, setting, folder: Stub(key, ran))
    return ran


def by_key(result: dict[str, Any]) -> dict[str, Any]:
    return {row["key"]: row for row in result["rows"]}


def test_all_ten_in_turns() -> None:
    done: list[str] = []
    result = measure(chosen(()), EAGER, passes=2, memory=False, progress=done.append)
    assert len(done) == steps(chosen(()), EAGER, 2, 1, memory=False) == 10 * 4
    assert [row["key"] for row in result["rows"]] == list(COMPARED) and result["not_measured"] == {}
    assert all(sorted(order) == sorted(COMPARED) for order in result["orders"]) and len(result["orders"]) == 2
    base = by_key(result)["e4e"]["complete"]
    for row in result["rows"]:
        parts = [row[name] for name in ("invert", "edit", "complete")]
        assert all(len(part["samples_ms"]) == part["passes"] == 2 for part in parts)
        for invert, edit, whole in zip(*(part["samples_ms"] for part in parts), strict=True):
            assert invert > 0 and edit > 0 and invert + edit == pytest.approx(whole, abs=2e-5)
        medians = row["complete"]["median_ms"], base["median_ms"]
        assert row["ratio"] == pytest.approx(medians[0] / medians[1])
        pairs = [a / b for a, b in zip(row["complete"]["samples_ms"], base["samples_ms"], strict=True)]
        assert row["ratio_quartiles"] == pytest.approx(list(times.quartiles(pairs)), rel=1e-3)
        assert row["params_m"] > 0 and row["gmacs"] > 0 and row["peak_memory_bytes"] is None
    assert by_key(result)["e4e"]["ratio"] == 1
    assert result["weights"] == "random, seed 5" and result["base"] == "e4e"


def test_the_papers_ratios() -> None:
    found = {key: times.published(key)["paper_ratio"] for key in COMPARED}
    assert found["e4e"] == 1 and found["hyperstyle"] is None
    assert found["ours"] == pytest.approx(0.121 / 0.036) and found["sdic"] == pytest.approx(3.1389, abs=1e-4)
    assert times.published("sfe")["paper_seconds"] == 0.078


def test_warm_up_and_rounds_as_many_as_asked(stubs: list[str]) -> None:
    result = measure(["e4e", "fs"], EAGER, passes=5, warmup=3, memory=False)
    assert len(stubs) == 2 * 2 * (3 + 5)
    assert stubs[::2] == [f"{key} invert" for key in stubs_order(result, warmup=3)]
    assert stubs[1::2] == [one.replace("invert", "edit") for one in stubs[::2]]


def stubs_order(result: dict[str, Any], warmup: int) -> list[str]:
    return ["e4e", "fs"] * warmup + [key for order in result["orders"] for key in order]


def test_methods_that_do_no_cars_are_named() -> None:
    result = measure(["e4e", "fs"], Setting(family=SMALL_CARS), passes=1, memory=False)
    assert [row["key"] for row in result["rows"]] == ["e4e"]
    assert result["not_measured"] == {"fs": "FS exists for faces-1024, not for small-cars; choose another family"}


@pytest.mark.parametrize(
    "failure", [RuntimeError("no memory\nat all"), EdgeditError("no memory"), ValueError("no memory")]
)
def test_a_method_that_fails_leaves_the_others(
    stubs: list[str], failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(key: str, setting: Setting, folder: Path) -> Stub:
        if key == "sfe":
            raise failure
        return Stub(key, stubs)

    monkeypatch.setattr(alone, "prepare", prepare)
    result = measure(["e4e", "sfe", "ours"], EAGER, passes=2, memory=False)
    assert [row["key"] for row in result["rows"]] == ["e4e", "ours"]
    assert result["not_measured"]["sfe"].startswith("no memory") and "\n" not in result["not_measured"]["sfe"]


def test_values_that_are_not_finite_are_no_measurement(stubs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "prepare", lambda key, setting, folder: Stub(key, stubs, good=key != "e4e"))
    result = measure(["e4e", "ours"], EAGER, passes=2, memory=False)
    (row,) = result["rows"]
    # Nothing to be compared with.
    assert row["key"] == "ours" and row["ratio"] is row["ratio_quartiles"] is None
    assert "not finite" in result["not_measured"]["e4e"]
    monkeypatch.setattr(alone, "prepare", lambda key, setting, folder: Stub(key, stubs, good=False))
    with pytest.raises(EdgeditError, match="no method could be measured: its values are not finite"):
        measure(["e4e"], EAGER, passes=2, memory=False)


def test_without_time_no_method_is_begun_and_no_further_round(stubs: list[str]) -> None:
    seconds = iter([9.0] * 4)  # both are prepared and warm

    def left() -> float:
        return next(seconds, -1.0)

    result = measure(["e4e", "fs"], EAGER, passes=50, memory=False, left=left)
    assert result["passes"] == len(result["orders"]) == 1 and result["passes_asked"] == 50
    assert all(row["complete"]["passes"] == 1 for row in result["rows"])
    seconds = iter([9.0] * 1)
    with pytest.raises(EdgeditError, match=NO_TIME):
        measure(["e4e", "fs"], EAGER, passes=50, memory=False, left=left)


def test_names() -> None:
    assert chosen(()) == list(COMPARED)
    assert chosen(["SFE", "HyperStyle"]) == ["e4e", "sfe", "hyperstyle"]
    assert chosen(["e4e"]) == ["e4e"]
    with pytest.raises(EdgeditError, match=r"there is no method 'hyprstyle'; did you mean hyperstyle\? there are e4e"):
        chosen(["hyprstyle"])


def test_what_does_not_fit_is_found_out_first(stubs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "free_memory", lambda device: 2**20)
    with pytest.raises(EdgeditError, match=r"all are in memory at once: the weights alone .* name fewer with --method"):
        check_fits(["e4e", "ours"], EAGER)
    held = alone.Memory(before=2**19, held=2**20, peak=2**21)
    monkeypatch.setattr(alone, "memory", lambda key, setting, folder: held)
    with pytest.raises(EdgeditError, match="together they take"):
        measure(["e4e", "ours"], EAGER, passes=1)
    assert stubs == []
    monkeypatch.setattr(times, "free_memory", lambda device: 2**30)
    result = measure(["e4e", "ours"], EAGER, passes=1)
    assert [row["peak_memory_bytes"] for row in result["rows"]] == [2**21 - 2**19] * 2


def test_threads_are_put_back(stubs: list[str]) -> None:
    import torch

    before = torch.get_num_threads()
    result = measure(["e4e"], Setting(family=SMALL, threads=before + 1), passes=1, memory=False)
    assert result["threads"] == min(before + 1, usable()) and torch.get_num_threads() == before


def test_memory_of_a_process_that_does_one_edit(tmp_path: Path) -> None:
    found = alone.memory("e4e", EAGER, tmp_path)
    if found is None:
        pytest.skip("this system does not tell how much memory a process holds")
    weights = 4e6 * by_key(measure(["e4e"], EAGER, passes=1, memory=False))["e4e"]["params_m"]
    assert found.before < found.held <= found.peak
    assert weights / 2 < found.own < weights + 500e6


def test_a_process_that_is_ended_says_so() -> None:
    with pytest.raises(EdgeditError, match="was ended from outside; was there memory enough"):
        alone.apart(os._exit, 9)
    with pytest.raises(statistics.StatisticsError):
        alone.apart(statistics.mean, [])
