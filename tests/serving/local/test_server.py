"""The development server starts, answers this machine alone, and leaves nothing behind, whatever dies first."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.local import ports
from serving.local.canary import InferError, ModelCanary
from serving.local.install import Installation
from serving.local.server import LocalServerError, LocalTriton
from tests.serving.local.small import ECHO, SLEEPER, ask, asleep, call, remains, running, wait_for, write_small

pytestmark = pytest.mark.triton
_ROOT = Path(__file__).resolve().parents[3]

_PARENT = """
import sys, time
from pathlib import Path
from serving.local.server import LocalTriton
server = LocalTriton(Path(sys.argv[1])).start()
pids = [*server.processes(), server._process.pid]
print(server.prefix, server.log.parent, *pids, flush=True)
time.sleep(600)
"""

# A server that ends because a model did not load does not wait for the models that did.
_NO_WAIT = ("--exit-timeout-secs=0",)

# A server that says ready before all of its ports are listened on, as Triton does for a few milliseconds.
_LATE = """#!/usr/bin/env python3
import http.server, sys, threading, time
ports = [int(word.split("=")[1]) for word in sys.argv if "-port=" in word]
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
for port in ports:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Ready)
    threading.Thread(target=server.serve_forever).start()
    time.sleep(0.3)
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, development_server: Installation) -> Iterator[LocalTriton]:
    """One to look at."""
    small = write_small(tmp_path_factory.mktemp("small"), echo=ECHO, sleeper=SLEEPER)
    os.environ["EDGEDIT_TEST_SECRET"] = "sesame"
    try:
        with LocalTriton(small, installation=development_server) as server:
            yield server
    finally:
        del os.environ["EDGEDIT_TEST_SECRET"]


def everything(server: LocalTriton) -> tuple[list[int], str, Path]:
    """Processes, the supervisor's among them, the prefix of shared memory, and the scratch folder."""
    assert server._process is not None
    pids = [*server.processes(), server._process.pid]
    assert len(pids) == 4
    assert server.memory_bytes() > 10 * 2**20
    assert len(remains(pids, server.prefix)) > len(pids)
    return pids, server.prefix, server.log.parent


def test_it_is_ready_and_infers(shared: LocalTriton) -> None:
    assert shared.ready() and shared.alive
    assert shared.models == ["echo", "sleeper"]
    assert shared.ready_seconds is not None and shared.ready_seconds > 0
    np.testing.assert_array_equal(call(shared, "echo", 7), np.full((1, 4, 4, 3), 248, np.uint8))


def test_it_is_ready_once_every_port_is_listened_on(
    small: Path, tmp_path: Path, development_server: Installation
) -> None:
    late = replace(development_server, server=tmp_path / "late")
    late.root.mkdir(parents=True)
    for part in development_server.root.iterdir():
        (late.root / part.name).symlink_to(part)
    (late.root / "bin").unlink()
    (late.root / "bin").mkdir()
    (late.root / "bin" / "tritonserver").write_text(_LATE)
    (late.root / "bin" / "tritonserver").chmod(0o755)
    with LocalTriton(small, installation=late) as server:
        assert all(ports.answered(int(address.rpartition(":")[2])) for address in (server.grpc, server.metrics))


def test_it_listens_on_loopback_alone(shared: LocalTriton) -> None:
    # 127.0.0.1 as the kernel writes it, also as an IPv6 address.
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    listening = {}
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = row.split()
            address, port = local.split(":")
            if state == "0A":
                listening.setdefault(int(port, 16), set()).add(address)
    for address in (shared.http, shared.grpc, shared.metrics):
        assert listening[int(address.rpartition(":")[2])] <= loopback


def test_the_callers_environment_is_not_the_servers(shared: LocalTriton) -> None:
    for pid in shared.processes():
        assert b"sesame" not in Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/repository/models/echo/load", b"{}"),
        ("/v2/repository/models/echo/unload", b"{}"),
        ("/v2/systemsharedmemory/region/r/register", b'{"key": "/r", "offset": 0, "byte_size": 1}'),
        ("/v2/cudasharedmemory/status", None),
        ("/v2/logging", b'{"log_verbose_level": 1}'),
        ("/v2/trace/setting", b"{}"),
    ],
)
def test_control_interfaces_are_closed(shared: LocalTriton, path: str, body: bytes | None) -> None:
    assert ask(shared, path, body)[0] == 403
    assert call(shared, "echo")[0, 0, 0, 0] == 248


def test_grpc_control_interfaces_are_closed(shared: LocalTriton) -> None:
    grpc = pytest.importorskip("tritonclient.grpc", reason="needs tritonclient[grpc]")
    with grpc.InferenceServerClient(shared.grpc) as client:
        assert client.is_server_ready()
        for control in (client.get_system_shared_memory_status, client.get_log_settings, client.get_trace_settings):
            with pytest.raises(grpc.InferenceServerException, match="restricted"):
                control()
        for change in (client.load_model, client.unload_model):
            with pytest.raises(grpc.InferenceServerException, match="restricted"):
                change("echo")


def test_shared_memory_is_open_where_it_was_asked_for(small: Path, development_server: Installation) -> None:
    with LocalTriton(small, shared_memory=True, installation=development_server) as server:
        status, read = ask(server, "/v2/systemsharedmemory/status")
        assert status == 200 and json.loads(read) == []


def test_a_clean_stop_leaves_nothing(server: LocalTriton) -> None:
    call(server, "echo")
    pids, prefix, scratch = everything(server)
    port = int(server.http.rpartition(":")[2])
    server.stop()
    assert remains(pids, prefix) == []
    assert not scratch.exists()
    assert not server.alive and server.pid is None
    ports.check(port, "HTTP")
    server.stop()


def test_a_call_in_flight_is_answered_before_a_clean_stop(server: LocalTriton) -> None:
    answers = []
    thread = threading.Thread(target=lambda: answers.append(call(server, "sleeper", 7, 60)))
    thread.start()
    assert wait_for(lambda: asleep(server))
    server.stop()
    thread.join(30)
    assert [int(answer[0, 0, 0, 0]) for answer in answers] == [7]


def test_it_can_be_started_again_after_a_stop(server: LocalTriton) -> None:
    server.stop(grace=False)
    server.start()
    assert call(server, "echo")[0, 0, 0, 0] == 248


@pytest.mark.parametrize("busy", [False, True])
def test_a_killed_server_leaves_nothing(server: LocalTriton, busy: bool) -> None:
    pids, prefix, scratch = everything(server)
    errors: list[InferError] = []

    def sleep() -> None:
        try:
            call(server, "sleeper", 255, 60)
        except InferError as error:
            errors.append(error)

    thread = threading.Thread(target=sleep)
    if busy:
        thread.start()
        assert wait_for(lambda: asleep(server))
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    # Its stub would go on for 25 seconds.
    assert wait_for(lambda: not remains(pids, prefix), 20)
    assert not server.alive
    if busy:
        thread.join()
        assert [error.state for error in errors] == ["unreachable"]
    server.stop()
    assert not scratch.exists()


def test_a_killed_parent_leaves_nothing(small: Path, development_server: Installation) -> None:
    pids, prefix, scratch, parent = _other_process(small)
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not remains(pids, prefix))
    assert wait_for(lambda: not scratch.exists())


def test_a_killed_supervisor_leaves_nothing_once_the_server_is_stopped(server: LocalTriton) -> None:
    pids, prefix, scratch = everything(server)
    os.kill(pids[-1], signal.SIGKILL)
    assert wait_for(lambda: not server.alive)
    server.stop()
    assert wait_for(lambda: not remains(pids, prefix))
    assert not scratch.exists()


def test_what_parent_and_supervisor_left_is_removed_by_the_next_start(
    small: Path, development_server: Installation
) -> None:
    pids, prefix, scratch, parent = _other_process(small)
    os.kill(pids[-1], signal.SIGSTOP)
    parent.kill()
    parent.wait()
    os.kill(pids[-1], signal.SIGKILL)
    # The kernel ends the server with its supervisor, and the idle stubs see that it is gone.
    assert wait_for(lambda: not any(map(running, pids)))
    assert remains(pids, prefix) and scratch.exists()
    with LocalTriton(small, installation=development_server):
        assert remains(pids, prefix) == []
        assert not scratch.exists()


def test_a_start_removes_nothing_of_a_running_server(server: LocalTriton, small: Path) -> None:
    with LocalTriton(small, installation=server.installation):
        everything(server)
    assert call(server, "echo")[0, 0, 0, 0] == 248


def _other_process(small: Path) -> tuple[list[int], str, Path, subprocess.Popen[str]]:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(small)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        start_new_session=True,
    )
    assert parent.stdout is not None
    prefix, scratch, *pids = parent.stdout.readline().split()
    return list(map(int, pids)), prefix, Path(scratch), parent


def test_a_restart_keeps_the_ports_and_leaves_nothing_of_before(server: LocalTriton) -> None:
    pids, prefix, _ = everything(server)
    addresses = server.http, server.grpc, server.metrics
    server.restart()
    assert (server.http, server.grpc, server.metrics) == addresses
    assert remains(pids, prefix) == []
    assert call(server, "echo")[0, 0, 0, 0] == 248


def test_a_stopped_server_is_not_restarted(server: LocalTriton) -> None:
    server.stop(grace=False)
    with pytest.raises(LocalServerError, match="has been stopped"):
        server.restart()


def test_a_stop_does_not_wait_for_a_start_in_another_thread(tmp_path: Path, development_server: Installation) -> None:
    slow = ECHO.replace(
        "    def execute",
        "    def initialize(self, _):\n        import time\n        time.sleep(60)\n\n    def execute",
    )
    server = LocalTriton(write_small(tmp_path, slow=slow), installation=development_server)
    errors: list[LocalServerError] = []

    def start() -> None:
        try:
            server.start()
        except LocalServerError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    assert wait_for(lambda: len(server.processes()) == 2)
    pids, prefix, _ = [*server.processes()], server.prefix, None
    server.stop()
    thread.join(20)
    assert [str(error) for error in errors] == ["the development server was stopped while it started"]
    assert remains(pids, prefix) == []


def test_a_port_in_use_is_said_in_one_line(shared: LocalTriton, small: Path, development_server: Installation) -> None:
    port = int(shared.grpc.rpartition(":")[2])
    server = LocalTriton(small, grpc_port=port, installation=development_server)
    with pytest.raises(ports.PortError, match=f"^port {port} for grpc is in use[^\n]*$"):
        server.start()
    assert not server.alive
    assert call(shared, "echo")[0, 0, 0, 0] == 248


def test_a_model_that_does_not_load_is_named_in_one_line(tmp_path: Path, development_server: Installation) -> None:
    broken = ECHO + "\nraise RuntimeError('no such weights')\n"
    repository = write_small(tmp_path, echo=ECHO, broken=broken)
    server = LocalTriton(repository, arguments=_NO_WAIT, installation=development_server)
    with pytest.raises(LocalServerError, match=r"^[^\n]*model broken: [^\n]*no such weights[^\n]*$"):
        server.start()
    assert not server.alive and server.processes() == {}


@pytest.mark.parametrize("deaths", [2, 9])
def test_a_start_in_which_a_process_dies_is_made_again(
    tmp_path: Path, development_server: Installation, deaths: int
) -> None:
    """As Triton has it on a busy machine."""
    dying = f"""
import os, signal
from pathlib import Path
died = Path(os.environ["HOME"], "died")
times = len(died.read_text()) if died.exists() else 0
if times < {deaths}:
    died.write_text("x" * (times + 1))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    repository = write_small(tmp_path, echo=dying + ECHO)
    server = LocalTriton(repository, arguments=_NO_WAIT, installation=development_server)
    if deaths == 2:
        with server:
            assert call(server, "echo")[0, 0, 0, 0] == 248
    else:
        with pytest.raises(LocalServerError, match=r"^[^\n]*model echo: [^\n]*is not healthy[^\n]*$"):
            server.start()
        assert not server.alive


def test_an_argument_that_the_server_does_not_know_is_said(small: Path, development_server: Installation) -> None:
    server = LocalTriton(small, arguments=["--no-such-option=1"], installation=development_server)
    with pytest.raises(LocalServerError, match=r"^[^\n]*no-such-option[^\n]*$"):
        server.start()


def test_the_log_stays_where_it_was_asked_for(small: Path, tmp_path: Path, development_server: Installation) -> None:
    log = tmp_path / "server.log"
    log.write_text("before\n")
    with LocalTriton(small, log=log, installation=development_server) as server:
        assert server.log == log
    text = log.read_text()
    assert text.startswith("before\n")
    assert "Started HTTPService" in text


def test_polling_serves_a_new_version(small: Path, tmp_path: Path, development_server: Installation) -> None:
    with LocalTriton(small, poll=True, installation=development_server) as server:
        assert call(server, "echo")[0, 0, 0, 0] == 248
        staged = tmp_path / "staged"
        staged.mkdir()
        (staged / "model.py").write_text(ECHO.replace("255 - x", "x + 1"))
        shutil.move(staged, small / "echo" / "2")
        assert wait_for(lambda: call(server, "echo")[0, 0, 0, 0] == 8)


def test_every_model_of_the_demo_bundle_answers_its_canary(triton: LocalTriton) -> None:
    canary = ModelCanary(triton.http, 60)
    assert {"invert", "edit", "edit_session", "edit_image"} <= set(triton.models)
    assert {model: canary.check(model) for model in triton.models} == {
        model: ("healthy", "") for model in triton.models
    }
    image = canary.infer("edit_session")["image"]
    assert isinstance(image, np.ndarray) and image.std() > 0
