"""Heals the development server: one whose model has lost its process, that hangs, or that has died is restarted.

A restart and not an unload and a load: those need a control interface that also accepts code, behind a key that every
user of the machine can read from the server's command line; a model with calls waiting for a process that is gone
takes a second for each of them to unload; and a restart heals everything else, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from engines.errors import EdgeditError
from serving.local.canary import InferError, ModelCanary
from serving.local.server import LocalTriton

STALLED_AFTER = 3
"""Rounds without one finished inference after which a model that does not answer in time counts as hung."""
_CALM = 60.0
"""Seconds without a restart after which the next one is made at once again."""
_LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Event:
    """An event: a failure that the watchdog has noticed, or a restart."""

    line: str
    """The event in words."""
    model: str | None
    """The model whose canary it was; None for the server as a whole."""
    healed: bool
    """Whether the server was restarted and is ready again."""
    seconds: float = 0.0
    """The time that the restart took."""


class Watchdog:
    """A thread that asks every model of a server for an inference, over and over; a context manager.

    Args:
        interval: seconds between rounds.
        deadline: seconds that an inference may take. A busy model may take longer, and is left alone as long as it
            finishes inferences at all.
        report: is told of every event, in the watchdog's thread.
    """

    def __init__(
        self,
        server: LocalTriton,
        *,
        interval: float = 5.0,
        deadline: float = 10.0,
        report: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.server = server
        self.interval = interval
        self.report = report
        self.events: list[Event] = []
        self.rounds = 0
        """Rounds in which every model was healthy."""
        self._canary = ModelCanary(server.http, deadline)
        self._models = server.models
        self._silent: dict[str, tuple[int, int]] = {}
        self._failing: set[str] = set()
        self._restarts: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="triton-watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the rounds; one that restarts the server is not waited for, stopping the server ends it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self.interval):
            if (failure := self._look()) is not None:
                self._heal(*failure)

    def _look(self) -> tuple[str | None, str] | None:
        """One round: the model and the reason for a restart, if there is one."""
        healthy = True
        for model in self._models:
            if self._stop.is_set():
                return None
            if not self.server.alive:
                return None, "the server has died"
            state, why = self._canary.check(model)
            if state == "failing":
                self._tell_once(model, why)
            else:
                self._failing.discard(model)
            healthy = healthy and state == "healthy"
            if state == "dead":
                return model, f"the process of model {model} has died"
            if state in ("late", "unreachable"):
                if self._stalled(model):
                    return model, f"model {model} does not answer ({why})"
            else:
                self._silent.pop(model, None)
        self.rounds += healthy
        return None

    def _stalled(self, model: str) -> bool:
        """Whether a model that did not answer has finished nothing else for `STALLED_AFTER` rounds either."""
        try:
            finished = self._canary.successes(model)
        except InferError:
            finished = -1
        before, rounds = self._silent.get(model, (finished, 0))
        rounds = rounds + 1 if finished == before else 1
        self._silent[model] = finished, rounds
        return rounds >= STALLED_AFTER

    def _heal(self, model: str | None, reason: str) -> None:
        now = time.monotonic()
        self._restarts = [at for at in self._restarts if now - at < _CALM]
        # A model that dies of every inference must not keep the machine busy with restarts.
        pause = min(2.0 ** len(self._restarts), _LONGEST_PAUSE) if self._restarts else 0.0
        if self._stop.wait(pause):
            return
        start = time.monotonic()
        try:
            self.server.restart()
        except EdgeditError as error:
            if not self._stop.is_set():
                self._tell(Event(f"{reason}, and the restart failed: {error}", model, False))
        else:
            seconds = time.monotonic() - start
            self._tell(Event(f"{reason}; restarted in {seconds:.1f} s", model, True, seconds))
        self._silent.clear()
        self._restarts.append(time.monotonic())

    def _tell_once(self, model: str, why: str) -> None:
        if model not in self._failing:
            self._failing.add(model)
            self._tell(Event(f"model {model} fails its canary, which a restart would not mend: {why}", model, False))

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        self.report(event)
