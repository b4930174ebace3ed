from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.gpu.queue import Outcome, Queue, Step
from engines.errors import EdgeditError


class Bench:
    """A queue on a folder, what it said, and which steps ran."""

    def __init__(self, out: Path, seconds: float = 60.0, name: str = "first") -> None:
        self.lines: list[str] = []
        self.ran: list[str] = []
        self.described = 0

        def describe() -> dict[str, Any]:
            self.described += 1
            return {"date": name}

        self.queue = Queue(out, seconds, describe, self.lines.append)

    def step(self, key: str, give: Callable[[], Outcome] | None = None, **more: Any) -> Step:
        def run() -> Outcome:
            self.ran.append(key)
            return give() if give is not None else Outcome({"value": key})

        return Step(key, run, **more)


def rows(out: Path, job: str = "job") -> dict[str, Any]:
    result = json.loads((out / f"{job}.json").read_text())
    return {row["step"]: result["runs"][row["run"]]["date"] for row in result["rows"]}


def status(out: Path, job: str = "job") -> dict[str, str]:
    return {key: one["status"] for key, one in json.loads((out / "state.json").read_text())["jobs"][job].items()}


def test_the_next_run_goes_on_where_this_one_ended(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    assert first.queue.take("job", [first.step("a")])
    assert not first.queue.take("job", [first.step("b", seconds=1e9)])
    assert first.ran == ["a"] and "waits for the next run" in first.lines[-1]
    second = Bench(tmp_path, name="second")
    assert second.queue.take("job", [second.step("a"), second.step("b")])
    assert second.ran == ["b"] and "a: done by an earlier run" in second.lines[0]
    assert rows(tmp_path) == {"a": "first", "b": "second"}
    third = Bench(tmp_path)
    assert third.queue.take("job", [third.step("a"), third.step("b")]) and third.ran == []
    # Nothing ran, so that nothing was measured for its sake.
    assert third.described == 0 and second.described == 1


def test_no_step_begins_once_the_time_is_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, seconds=0.0)
    assert not bench.queue.take("job", [bench.step("a")]) and bench.ran == []
    assert not (tmp_path / "job.json").exists()


def test_what_is_skipped_is_recorded_and_looked_at_again(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    assert first.queue.take("job", [first.step("a", lacks="TensorRT is not installed"), first.step("b")])
    assert first.ran == ["b"] and first.lines[0] == "job: a: skipped: TensorRT is not installed"
    assert json.loads((tmp_path / "state.json").read_text())["jobs"]["job"]["a"] == {
        "status": "skipped",
        "reason": "TensorRT is not installed",
    }
    second = Bench(tmp_path)
    second.queue.take("job", [second.step("a"), second.step("b")])
    assert second.ran == ["a"] and status(tmp_path) == {"a": "done", "b": "done"}


@pytest.mark.parametrize("error", [EdgeditError("one\nline"), RuntimeError("one line"), ValueError("one line")])
def test_what_fails_is_one_line_and_the_rest_goes_on(tmp_path: Path, error: Exception) -> None:
    def fail() -> Outcome:
        raise error

    first = Bench(tmp_path)
    assert first.queue.take("job", [first.step("a", fail), first.step("b")])
    assert status(tmp_path) == {"a": "failed", "b": "done"} and first.lines[0] == "job: a: failed: one line"
    assert rows(tmp_path) == {"b": "first"}
    second = Bench(tmp_path)
    second.queue.take("job", [second.step("a")])
    assert second.ran == ["a"]


def test_what_ended_early_is_kept_until_it_is_measured_whole(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    first.queue.take("job", [first.step("a", lambda: Outcome({"passes": 3}, done=False))])
    assert status(tmp_path) == {"a": "partial"}
    second = Bench(tmp_path, name="second")
    second.queue.take("job", [second.step("a", lambda: Outcome({"passes": 100}))])
    result = json.loads((tmp_path / "job.json").read_text())
    assert [row["passes"] for row in result["rows"]] == [100] and result["runs"] == [{"date": "second"}]


def test_a_state_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(EdgeditError, match=r"state\.json holds no JSON object: .*; move it away to begin anew"):
        Bench(tmp_path)


def test_a_result_that_is_no_number_is_never_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        bench.queue.take("job", [bench.step("a", lambda: Outcome({"value": float("nan")}))])
    assert not (tmp_path / "job.json").exists()
