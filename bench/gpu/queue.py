"""Jobs one after the other inside the minutes there are; what is done is not done again by the next run.

    DIR/state.json   by job and step: done, partial, skipped or failed, with the reason
    DIR/<job>.json   rows of results, each with the number of the run that measured it; the runs with their device,
                     driver, clocks, versions, date, command and ceilings

A step that was skipped for want of something is looked at again by the next run, and so is one that failed or ended
early. State and results are written after every step, whole or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.program import read_json, save
from engines.errors import EdgeditError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """The result of a step."""

    row: Mapping[str, Any]
    done: bool = True
    """Whether the step is done; if not, the next run takes it again."""


@dataclass(frozen=True)
class Step:
    """A part of a job that is measured in one go."""

    key: str
    run: Callable[[], Outcome]
    lacks: str | None = None
    """The reason why it cannot run here; None if it can."""
    seconds: float = 0.0
    """Seconds that must be left for it to begin."""


class Queue:
    """The state of a folder of results.

    Args:
        out: the folder; made if it is not there.
        seconds: how long this run may take.
        describe: called once, before the first step that runs: what the results say of this run.
        say: called with one line per step.

    Raises:
        EdgeditError: if the folder holds a state that cannot be read.
    """

    def __init__(self, out: Path, seconds: float, describe: Callable[[], dict[str, Any]], say: Say) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out = out
        self.say = say
        self._deadline = time.monotonic() + seconds
        self._describe = describe
        self._about: dict[str, Any] | None = None
        self._state = read(out / "state.json") or {"schema_version": 1, "jobs": {}}

    def left(self) -> float:
        """Seconds that are left."""
        return self._deadline - time.monotonic()

    def take(self, job: str, steps: Iterable[Step]) -> bool:
        """Runs the steps of a job that are not done yet; False once the time is up."""
        known = self._state["jobs"].setdefault(job, {})
        for step in steps:
            if known.get(step.key, {}).get("status") == "done":
                self.say(f"{job}: {step.key}: done by an earlier run")
                continue
            if step.lacks is not None:
                self._note(job, step, "skipped", step.lacks)
                continue
            if self.left() <= step.seconds:
                self.say(f"{job}: {step.key}: waits for the next run, {max(self.left(), 0):.0f} s are left")
                return False
            self._run(job, step)
        return True

    def _run(self, job: str, step: Step) -> None:
        if self._about is None:
            self._about = self._describe()
        started = time.monotonic()
        try:
            outcome = step.run()
        except (EdgeditError, RuntimeError, OSError, ValueError, FloatingPointError, ModuleNotFoundError) as error:
            self._note(job, step, "failed", " ".join(str(error).split())[:300] or type(error).__name__)
            return
        seconds = time.monotonic() - started
        self._keep(job, step.key, outcome.row, seconds)
        self._note(job, step, "done" if outcome.done else "partial", f"{seconds:.1f} s")

    def _note(self, job: str, step: Step, status: str, text: str) -> None:
        what = "seconds" if status in ("done", "partial") else "reason"
        value = float(text.removesuffix(" s")) if what == "seconds" else text
        self._state["jobs"][job][step.key] = {"status": status, what: value}
        save(self.out / "state.json", self._state, allow_nan=False)
        self.say(f"{job}: {step.key}: {status}{': ' if what == 'reason' else ', '}{text}")

    def _keep(self, job: str, key: str, row: Mapping[str, Any], seconds: float) -> None:
        """Adds a row to the job's results, in place of one of the same step."""
        file = self.out / f"{job}.json"
        result = read(file) or {"schema_version": 1, "job": job, "runs": [], "rows": []}
        if self._about not in result["runs"]:
            result["runs"].append(self._about)
        run = result["runs"].index(self._about)
        rows = [old for old in result["rows"] if old["step"] != key]
        result["rows"] = [*rows, {"step": key, "run": run, "seconds": round(seconds, 3), **row}]
        used = sorted({old["run"] for old in result["rows"]})
        result["runs"] = [result["runs"][number] for number in used]
        for old in result["rows"]:
            old["run"] = used.index(old["run"])
        save(file, result, allow_nan=False)


def read(file: Path) -> dict[str, Any] | None:
    """The object in a file of the folder; None if there is none.

    Raises:
        EdgeditError: if the file cannot be read.
    """
    try:
        return read_json(file) if file.exists() else None
    except EdgeditError as error:
        raise EdgeditError(f"{error}; move it away to begin anew") from None
