"""The watchdog heals what the server does not: dead and hung models, and its own death; and leaves busy ones alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgedit.editor import open_bundle
from serving.local.canary import InferError, ModelCanary
from serving.local.install import Installation
from serving.local.server import LocalTriton
from serving.local.watchdog import Watchdog
from tests.serving.local.small import ECHO, call, stub, wait_for, write_small

pytestmark = pytest.mark.triton

HUNG = """
import time
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        time.sleep(600)
"""

RAISES = ECHO.replace("255 - x", "1 // 0")


class Caller(threading.Thread):
    """Calls a model over and over; anything but a typed error ends it."""

    def __init__(self, server: LocalTriton) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.errors: list[InferError] = []
        self.failed = 0.0
        """When the latest call that failed began."""
        self.good = 0
        self.broken: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        try:
            while not self.done.wait(0.01):
                began = time.monotonic()
                try:
                    assert call(self.server, "echo", 7, 60)[0, 0, 0, 0] == 248
                    self.good += 1
                except InferError as error:
                    self.errors.append(error)
                    self.failed = began
        except BaseException as error:
            self.broken = error


def test_without_a_watchdog_a_killed_stub_stays_dead(server: LocalTriton) -> None:
    os.kill(stub(server, "echo"), signal.SIGKILL)
    canary = ModelCanary(server.http, 30)
    assert [canary.check("echo")[0] for _ in range(2)] == ["dead", "dead"]
    assert server.ready()
    assert canary.check("sleeper") == ("healthy", "")


def test_a_stub_killed_under_load_is_healed(server: LocalTriton) -> None:
    callers = [Caller(server) for _ in range(4)]
    with Watchdog(server, interval=0.5, deadline=30) as watchdog:
        for caller in callers:
            caller.start()
        assert wait_for(lambda: all(caller.good > 5 for caller in callers))
        assert not any(caller.errors for caller in callers)
        os.kill(stub(server, "echo"), signal.SIGKILL)
        assert wait_for(lambda: watchdog.events)
        healed = time.monotonic()
        good = [caller.good for caller in callers]
        assert wait_for(lambda: all(c.good > before + 20 for c, before in zip(callers, good, strict=True)))
        for caller in callers:
            caller.done.set()
        for caller in callers:
            caller.join(30)
        (event,) = watchdog.events
        assert event.healed and event.model == "echo" and event.line.startswith("the process of model echo has died")
    assert [caller.broken for caller in callers] == [None] * 4
    assert {error.state for caller in callers for error in caller.errors} <= {"dead", "unreachable", "failing"}
    assert any(error.state == "dead" for caller in callers for error in caller.errors)
    # No call that begins once it is healed fails.
    assert max(caller.failed for caller in callers) < healed


def test_clients_of_a_bundle_get_typed_errors_until_a_killed_stub_is_healed(
    pipelines: Path, development_server: Installation
) -> None:
    pytest.importorskip("tritonclient.grpc", reason="needs tritonclient[grpc]")
    from serving.client import Client, DeadlineError, UnavailableError

    bundle = open_bundle(pipelines)
    crop = np.full((*bundle.family.image_shape, 3), 90, np.uint8)
    errors: list[BaseException] = []
    good: list[np.ndarray] = []
    done = threading.Event()
    server = LocalTriton(bundle, installation=development_server)

    def edit(client: Client) -> None:
        while not done.wait(0.01):
            try:
                good.append(client.edit(client.invert(crop, aligned=True), {"age": 1.0}))
            except BaseException as error:
                errors.append(error)

    with server, Client(server.grpc, retries=0, timeout=20) as client, Watchdog(server, interval=1, deadline=60) as dog:
        threads = [threading.Thread(target=edit, args=(client,), daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            assert wait_for(lambda: len(good) > 5 or errors) and not errors
            os.kill(stub(server, "edit"), signal.SIGKILL)
            assert wait_for(lambda: dog.events)
            failed, before = len(errors), len(good)
            assert wait_for(lambda: len(good) > before + 9)
        finally:
            done.set()
            for thread in threads:
                thread.join(60)
        assert dog.events[0].healed
    # What may be asked again, and by default is: a model whose process has died is said to be away.
    assert failed and {type(error) for error in errors} <= {UnavailableError, DeadlineError}
    assert all(np.array_equal(image, good[0]) for image in good)


def test_a_server_that_was_killed_is_started_again(server: LocalTriton) -> None:
    assert server.pid is not None
    with Watchdog(server, interval=0.2, deadline=30) as watchdog:
        os.kill(server.pid, signal.SIGKILL)
        assert wait_for(lambda: watchdog.events)
        assert watchdog.events[0].healed and watchdog.events[0].line.startswith("the server has died")
        assert call(server, "echo")[0, 0, 0, 0] == 248


def test_a_model_that_hangs_is_healed(tmp_path: Path, development_server: Installation) -> None:
    server = LocalTriton(write_small(tmp_path, echo=ECHO, hung=HUNG), installation=development_server)
    with server, Watchdog(server, interval=0.1, deadline=0.5) as watchdog:
        assert wait_for(lambda: watchdog.events)
        assert watchdog.events[0].healed and watchdog.events[0].model == "hung"
        watchdog.stop()
        assert call(server, "echo")[0, 0, 0, 0] == 248


def test_a_busy_model_is_left_alone(server: LocalTriton) -> None:
    done = threading.Event()

    def keep_busy() -> None:
        while not done.is_set():
            call(server, "sleeper", 6, 60)

    threads = [threading.Thread(target=keep_busy, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    states = []
    with Watchdog(server, interval=0.1, deadline=0.4) as watchdog:
        canary = ModelCanary(server.http, 0.4)
        states = [canary.check("sleeper")[0] for _ in range(7)]
        assert watchdog.events == []
    done.set()
    for thread in threads:
        thread.join(30)
    # It was busy enough for a canary to come too late, more often than a hung model is allowed.
    assert states.count("late") > 3


def test_a_model_that_fails_by_itself_is_told_of_once_and_not_restarted(
    tmp_path: Path, development_server: Installation
) -> None:
    server = LocalTriton(write_small(tmp_path, echo=ECHO, raises=RAISES), installation=development_server)
    with server:
        pid = server.pid
        with Watchdog(server, interval=0.05, deadline=30) as watchdog:
            assert wait_for(lambda: watchdog.events)
            canary = ModelCanary(server.http, 30)
            before = canary.successes("echo")
            assert wait_for(lambda: canary.successes("echo") > before + 3)
            (event,) = watchdog.events
        assert not event.healed and event.model == "raises" and "ZeroDivisionError" in event.line
        assert server.pid == pid


def test_leaving_stops_the_rounds(server: LocalTriton) -> None:
    with Watchdog(server, interval=0.05, deadline=30) as watchdog:
        assert wait_for(lambda: watchdog.rounds > 1)
    os.kill(stub(server, "echo"), signal.SIGKILL)
    rounds = watchdog.rounds
    time.sleep(1)
    assert watchdog.events == [] and watchdog.rounds <= rounds + 1
