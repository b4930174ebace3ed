"""A real uvicorn on loopback: what only sockets show."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serving.gateway import connection
from serving.gateway.keys import add_key
from serving.gateway.server import bind
from serving.gateway.settings import GatewayError
from tests.serving.gateway.conftest import EditorBackend, Running, served, settings

_HEAD = "POST /v1/inversions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"


def _edit(handle: str) -> str:
    body = json.dumps({"handle": handle, "edits": {"smile": 1}})
    head = "POST /v1/edits HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}"


def _connect(running: Running, text: str = "") -> socket.socket:
    link = socket.create_connection(("127.0.0.1", running.port), timeout=60)
    link.sendall(text.encode())
    return link


def _all(link: socket.socket) -> str:
    """Everything until the other side closes."""
    parts = []
    while part := link.recv(65536):
        parts.append(part)
    return b"".join(parts).decode()


def _until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def _hold(running: Running, backend: EditorBackend) -> None:
    """Has edits wait."""
    made = threading.Event()

    def make() -> None:
        backend.gate = asyncio.Event()
        made.set()

    running.loop_call(make)
    assert made.wait(60)


def _release(running: Running, backend: EditorBackend) -> None:
    assert backend.gate is not None
    running.loop_call(backend.gate.set)


def test_a_slow_body_is_408_and_frees_its_place(backend: EditorBackend) -> None:
    with served(backend, body_timeout=0.4) as running:
        with _connect(running, _HEAD + "Content-Length: 1000\r\n\r\nxx") as link:
            answer = _all(link)
        assert answer.startswith("HTTP/1.1 408") and "slow-body" in answer
        assert running.app.state.gateway.admission.inside == 0
        # So is one that drips without end.
        with _connect(running, _HEAD + "Transfer-Encoding: chunked\r\n\r\n") as link:
            stopped = threading.Event()

            def drip() -> None:
                while not stopped.wait(0.05):
                    try:
                        link.sendall(b"1\r\nx\r\n")
                    except OSError:
                        return

            dripping = threading.Thread(target=drip)
            dripping.start()
            try:
                assert link.recv(65536).startswith(b"HTTP/1.1 408")
            finally:
                stopped.set()
                dripping.join()


def test_a_slow_head_is_408(backend: EditorBackend) -> None:
    with served(backend, head_timeout=1.0) as running:
        for begun in ("", "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "):
            with _connect(running, begun) as link:
                answer = _all(link)
            assert answer.startswith("HTTP/1.1 408") and "slow-head" in answer
        # The second request of a connection too; the first was in time.
        whole = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with _connect(running, whole) as link:
            first = b""
            while not first.endswith(b"}"):
                first += link.recv(65536)
            assert first.startswith(b"HTTP/1.1 200")
            link.sendall(b"GET /healthz HT")
            assert _all(link).startswith("HTTP/1.1 408")
        assert httpx.get(f"{running.url}/healthz", timeout=60).status_code == 200


def test_a_refusal_arrives_although_the_body_is_still_being_sent(backend: EditorBackend) -> None:
    with served(backend, body_bytes=100_000) as running:
        answer = httpx.post(
            f"{running.url}/v1/inversions", content=bytes(5_000_000), headers={"content-type": "image/png"}, timeout=60
        )
        assert answer.status_code == 413 and answer.json()["type"].endswith("body-too-large")


def test_who_sends_on_after_a_refusal_is_cut_off(backend: EditorBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER", 0.5)
    with served(backend, body_bytes=1000) as running:
        with _connect(running, _HEAD + "Transfer-Encoding: chunked\r\n\r\n") as link:
            chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
            end = time.monotonic() + 60
            with pytest.raises(OSError):
                while time.monotonic() < end:
                    link.sendall(chunk)
                    time.sleep(0.005)
        _until(lambda: not running.server.server_state.connections)


def test_who_waits_for_100_continue_never_sends_a_body_that_is_refused(backend: EditorBackend) -> None:
    with served(backend, body_bytes=1000) as running:
        for length, first in ((5000, b"HTTP/1.1 413"), (10, b"HTTP/1.1 100")):
            with _connect(running, _HEAD + f"Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n") as link:
                assert link.recv(65536).startswith(first)


def test_what_is_not_http_gets_a_problem(backend: EditorBackend) -> None:
    with served(backend) as running:
        for nonsense in (
            "\x16\x03\x01\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET /" + "x" * 100_000,
        ):
            with _connect(running, nonsense) as link:
                answer = _all(link)
            assert answer.startswith("HTTP/1.1 400") and "application/problem+json" in answer
        smuggled = _HEAD + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        with _connect(running, smuggled + "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as link:
            link.settimeout(10)
            try:
                assert "edgedit_gateway_requests" not in _all(link)
            except TimeoutError:
                pass


def test_more_connections_than_allowed_are_refused_at_once(backend: EditorBackend) -> None:
    with served(backend, connections=2) as running:
        with _connect(running), _connect(running):
            _until(lambda: len(running.server.server_state.connections) == 2)
            with _connect(running) as link:
                answer = _all(link)
            assert answer.startswith("HTTP/1.1 503") and "Retry-After: 1" in answer
        _until(lambda: not running.server.server_state.connections)
        assert httpx.get(f"{running.url}/healthz", timeout=60).status_code == 200


def test_who_leaves_takes_the_work_along(backend: EditorBackend, face_png: bytes) -> None:
    with served(backend) as running:
        headers = {"content-type": "image/png"}
        sent = httpx.post(f"{running.url}/v1/inversions?aligned=true", content=face_png, headers=headers, timeout=60)
        _hold(running, backend)
        with _connect(running, _edit(sent.json()["handle"])):
            _until(lambda: backend.most == 1)
        _until(lambda: backend.cancelled == 1)
        _until(lambda: running.app.state.gateway.admission.inside == 0)
        assert 'status="499"' in httpx.get(f"{running.url}/metrics", timeout=60).text
        # Also while the body is on its way.
        with _connect(running, _HEAD + "Content-Length: 1000\r\n\r\nxx"):
            _until(lambda: running.app.state.gateway.admission.inside == 1)
        _until(lambda: running.app.state.gateway.admission.inside == 0)


def test_a_drain_lets_running_requests_finish(backend: EditorBackend, face_png: bytes) -> None:
    with served(backend, drain_delay=60.0, drain_timeout=60.0) as running, httpx.Client(timeout=120) as client:
        headers = {"content-type": "image/png"}
        sent = client.post(f"{running.url}/v1/inversions?aligned=true", content=face_png, headers=headers)
        assert client.get(f"{running.url}/readyz").status_code == 200
        _hold(running, backend)
        answers: list[httpx.Response] = []
        wanted = {"handle": sent.json()["handle"], "edits": {"smile": 1}}
        waiting = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{running.url}/v1/edits", json=wanted, timeout=120))
        )
        waiting.start()
        _until(lambda: running.app.state.gateway.admission.working == 1)
        running.loop_call(running.server.drain)
        _until(lambda: running.server.gateway.draining)
        # Balancers look elsewhere, while who comes still is served.
        ready = client.get(f"{running.url}/readyz")
        assert ready.status_code == 503 and ready.headers["connection"] == "close"
        assert client.get(f"{running.url}/v1/directions").status_code == 200

        def closed() -> bool:
            try:
                socket.create_connection(("127.0.0.1", running.port), timeout=5).close()
            except OSError:
                return True
            return False

        assert not closed()
        running.loop_call(lambda: running.server.handle_exit(signal.SIGTERM, None))
        _until(closed)
        assert waiting.is_alive()
        _release(running, backend)
        waiting.join(120)
        running.thread.join(60)
        assert not running.thread.is_alive()
        assert [answer.status_code for answer in answers] == [200]


def test_a_drain_does_not_wait_for_ever(backend: EditorBackend) -> None:
    with served(backend, drain_timeout=1.0) as running:
        _hold(running, backend)
        with _connect(running, _edit("0" * 32)) as link:
            _until(lambda: backend.most == 1)
            running.loop_call(running.server.drain)
            running.thread.join(60)
            assert not running.thread.is_alive()
            assert _all(link).startswith("HTTP/1.1 503")
        assert backend.cancelled == 1


def test_an_address_that_is_taken_is_one_line() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(GatewayError, match=r"cannot listen on 127\.0\.0\.1"):
            bind(settings(port=other.getsockname()[1]))


_SCRIPT = """
import sys
from pathlib import Path
from edgedit.commands.serve_gateway import ServeGateway
print(ServeGateway(triton="127.0.0.1:1", port=0, drain_delay=0.2, api_keys=Path(sys.argv[1])).run())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_verb_runs_without_a_triton_and_heeds_signals(tmp_path: Path) -> None:
    old = {"authorization": f"Bearer {add_key(tmp_path / 'keys', 'old')}"}
    root = Path(__file__).resolve().parents[3]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "keys")],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("gateway on http://127.0.0.1:")
            url = line.split()[2].rstrip(",")
            assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
            assert httpx.get(f"{url}/readyz", timeout=60).status_code == 503
            away = httpx.get(f"{url}/v1/directions", headers=old, timeout=60)
            assert away.status_code == 503 and "127.0.0.1:1" not in away.text
            new = {"authorization": f"Bearer {add_key(tmp_path / 'keys', 'new')}"}
            assert httpx.get(f"{url}/v1/directions", headers=new, timeout=60).status_code == 401
            process.send_signal(signal.SIGHUP)
            _until(lambda: httpx.get(f"{url}/v1/directions", headers=new, timeout=60).status_code == 503)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert "stopped" in out
    for text in err.splitlines():
        assert json.loads(text)["level"] in ("info", "warning"), text


async def _much(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with more than the buffers of two sockets hold."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(64 << 20)})


@pytest.mark.parametrize("header", ["", "Connection: close\r\n"])
def test_an_answer_that_nobody_takes_is_dropped(header: str) -> None:
    limits = settings(timeout=0.3, max_timeout=0.5)
    config = uvicorn.Config(
        _much, http=connection.connection_class(limits), lifespan="off", log_config=None, timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    with bind(limits) as listener:
        thread = threading.Thread(target=lambda: server.run([listener]))
        thread.start()
        try:
            with socket.create_connection(listener.getsockname(), timeout=60) as link:
                link.sendall(f"GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n".encode())
                _until(lambda: server.server_state.total_requests == 1)
                _until(lambda: not server.server_state.connections)
        finally:
            server.should_exit = True
            thread.join(60)


def test_a_public_address_needs_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgedit.commands.serve_gateway import ServeGateway, ServeKey

    with pytest.raises(GatewayError, match="without --api-keys only loopback"):
        ServeGateway(host="0.0.0.0").run()
    told = ServeKey(name="phone", api_keys=tmp_path / "keys").run()
    key = capsys.readouterr().out.split()[0]
    assert key.startswith("edk_") and key not in json.dumps(told)
    assert ServeGateway(host="0.0.0.0", api_keys=tmp_path / "keys").settings().host == "0.0.0.0"


def test_the_detectors_weights_are_looked_for_at_the_start(
    no_index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they cannot be had it serves all the same, for those who send aligned faces."""
    from edgedit.commands.serve_gateway import ServeGateway

    monkeypatch.setattr(
        "serving.gateway.server.serve", lambda connect, settings, listening, extend: listening("http://here")
    )
    monkeypatch.setattr("engines.packages.Package.installed", lambda package: None)
    ServeGateway().run()
    first, *refused, listening = " ".join(capsys.readouterr().out.split()).partition("whole photos will be refused: ")
    assert first.startswith("fetching the package mtcnn-runtime 1.0.0 with pip") and refused
    assert "pip install --no-deps mtcnn-runtime==1.0.0 gateway on http://here" in listening
