"""Both clients over both protocols against real sockets that are not Triton's."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.client import AsyncClient, Client
from serving.client.errors import DeadlineError, RequestError, ServingError, UnavailableError
from serving.client.wire import Profile
from tests.serving.client.conftest import Listener

_ROOT = Path(__file__).resolve().parents[3]
pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

PROFILE = Profile((16, 16), {})
PROTOCOLS = pytest.mark.parametrize("protocol", ["grpc", "http"])


class Both:
    """Calls a method on a new client of either kind."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def call(self, url: str, method: str, *args: Any, protocol: str, retries: int = 0, timeout: float = 60.0) -> Any:
        options: dict[str, Any] = {"protocol": protocol, "retries": retries, "timeout": timeout}
        if self._kind == "threads":
            with Client(url, **options) as client:
                return getattr(client, method)(*args)

        async def call() -> Any:
            async with AsyncClient(url, **options) as client:
                return await getattr(client, method)(*args)

        return asyncio.run(call())


@pytest.fixture(params=["threads", "asyncio"])
def both(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


@PROTOCOLS
def test_a_server_that_is_not_there(both: Both, protocol: str, closed_port: str) -> None:
    with pytest.raises(UnavailableError, match=f"{closed_port} cannot be reached") as caught:
        both.call(closed_port, "directions", protocol=protocol, retries=1)
    assert "\n" not in str(caught.value)
    assert both.call(closed_port, "ready", protocol=protocol) is False


@PROTOCOLS
def test_a_server_that_says_nothing(both: Both, protocol: str, silent: Listener) -> None:
    with pytest.raises(DeadlineError, match="longer timeout"):
        both.call(silent.url, "directions", protocol=protocol, retries=5, timeout=0.5)
    assert both.call(silent.url, "ready", protocol=protocol, timeout=0.2) is False


def test_a_connection_that_breaks_is_tried_again_as_often_as_asked(both: Both, hanging_up: Listener) -> None:
    with pytest.raises(UnavailableError):
        both.call(hanging_up.url, "directions", protocol="http", retries=3)
    assert hanging_up.connections >= 4


def test_half_an_answer_is_no_answer(both: Both, breaking_off: Listener) -> None:
    with pytest.raises(UnavailableError):
        both.call(breaking_off.url, "directions", protocol="http")


@pytest.mark.parametrize("kind", ["http_port", "curt_http_port"])
def test_grpc_at_a_port_for_http_is_told_so(both: Both, kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(kind)
    message = f"^{url} speaks HTTP and not gRPC; give the server's port for gRPC .*, or protocol='http'$"
    with pytest.raises(ServingError, match=message) as caught:
        both.call(url, "directions", protocol="grpc", retries=1)
    # It is not taken for a server that is down.
    assert type(caught.value) is ServingError


def test_a_server_that_hangs_up_on_everybody_is_not_said_to_speak_http(both: Both, hanging_up: Listener) -> None:
    with pytest.raises(UnavailableError, match="ends connections at once"):
        both.call(hanging_up.url, "directions", protocol="grpc")


def test_http_at_a_port_for_grpc_is_told_so(both: Both, grpc_port: str) -> None:
    message = f"^{grpc_port} does not speak HTTP, as .*; give the server's port for HTTP .*, or protocol='grpc'$"
    with pytest.raises(ServingError, match=message) as caught:
        both.call(grpc_port, "directions", protocol="http", retries=5)
    assert type(caught.value) is ServingError


@PROTOCOLS
def test_waiting_for_a_slot_counts_against_the_deadline(protocol: str, silent: Listener) -> None:
    with Client(silent.url, protocol=protocol, concurrency=1, retries=0) as client, ThreadPoolExecutor(1) as pool:
        client._client._profile = PROFILE
        holding = pool.submit(client.edit, "ab" * 16, {"age": 1}, timeout=3)
        while not client._client._slots.locked():
            time.sleep(0.01)
        with pytest.raises(DeadlineError):
            client.edit("ab" * 16, {"age": 1}, timeout=0.3)
        assert not holding.done()
        client.close()
        with pytest.raises(ServingError):
            holding.result(60)


@PROTOCOLS
def test_a_task_that_is_cancelled_gives_its_slot_back(protocol: str, silent: Listener) -> None:
    async def main() -> None:
        async with AsyncClient(silent.url, protocol=protocol, concurrency=1, retries=0) as client:
            client._profile = PROFILE
            first = asyncio.create_task(client.edit("ab" * 16, {"age": 1}, timeout=60))
            while not client._slots.locked():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            waiting = asyncio.create_task(client.edit("ab" * 16, {"age": 1}, timeout=60))
            await asyncio.sleep(0.05)
            for task in (waiting, first):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert not client._slots.locked()

    asyncio.run(main())


@PROTOCOLS
def test_a_closed_client_says_so(protocol: str, closed_port: str) -> None:
    client = Client(closed_port, protocol=protocol)
    client.close()
    client.close()
    assert client.ready() is False
    for call in (client.directions, lambda: client.edit("ab" * 16), lambda: list(client.sweep("ab", "age", 0, 1, 2))):
        with pytest.raises(ServingError, match="this client is closed"):
            call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "https"}, "protocol must be grpc or http"),
        ({"concurrency": 0}, "concurrency must be 1 or more"),
        ({"concurrency": np.int64(0)}, "concurrency must be 1 or more"),
        ({"url": "http://localhost:8000"}, "host:port"),
    ],
)
def test_arguments_that_cannot_be(options: dict[str, Any], message: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(RequestError, match=message):
            kind(**options)


def test_counts_may_be_of_numpy(closed_port: str) -> None:
    with Client(closed_port, concurrency=np.int64(2), retries=np.int32(0)) as client:
        client.sweep("ab" * 16, "age", np.float32(0), np.int8(1), np.int16(3))


def test_sweeps_and_edits_that_cannot_be_are_refused_at_once(closed_port: str) -> None:
    with Client(closed_port) as client:
        for arguments, message in (
            (("age", 0, 1, 0), "steps must be"),
            (("age", 0, 1, 2.5), "steps must be"),
            (("age", 0, float("inf"), 3), "finite"),
            (("age", None, 1, 3), "must be a number"),
        ):
            with pytest.raises(RequestError, match=message):
                client.sweep("ab" * 16, *arguments)
        with pytest.raises(RequestError, match="direction 'age' is given twice"):
            client.edit("ab" * 16, {"age": 1}, age=2)
        with pytest.raises(RequestError, match="edits are strengths by direction"):
            client.edit("ab" * 16, ["age:1"])  # type: ignore[arg-type]
        with pytest.raises(RequestError, match="timeout must be"):
            client.directions(timeout=-1)


def test_http_connections_of_threads_that_ended_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    # As after the 15 seconds for which idle connections are kept.
    monkeypatch.setattr(aiohttp, "TCPConnector", partial(aiohttp.TCPConnector, keepalive_timeout=0.5))
    answered: list[socket.socket] = []

    def treat(connection: socket.socket) -> None:
        connection.recv(1000)
        answered.append(connection)
        if len(answered) == 3:  # at the same time, so that no thread finds the connection of another idle
            for each in answered:
                each.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with closing(Listener(treat)) as listener, Client(listener.url, protocol="http", retries=0, timeout=60) as client:
        said: list[bool] = []
        threads = [threading.Thread(target=lambda: said.append(client.ready())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said == [True] * 3 and len(answered) == 3
        for connection in answered:
            # An open connection would have the server wait for it when it stops.
            connection.settimeout(60)
            assert connection.recv(1000) == b""


@pytest.fixture(params=["grpc", "http"])
def answering(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A protocol, and host:port of a server whose model is ready."""
    if request.param == "http":

        class Ready(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            yield "http", f"127.0.0.1:{server.server_port}"
            server.shutdown()
        return
    grpc, pb = pytest.importorskip("grpc"), pytest.importorskip("tritonclient.grpc.service_pb2")
    ready = grpc.unary_unary_rpc_method_handler(
        lambda _, context: pb.ModelReadyResponse(ready=True).SerializeToString()
    )
    handlers = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelReady": ready})
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield "grpc", f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_client_may_be_used_from_many_threads_and_in_a_running_event_loop(answering: tuple[str, str]) -> None:
    protocol, url = answering
    with Client(url, protocol=protocol, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: client.ready(), range(40)))

        async def main() -> bool:
            async with AsyncClient(url, protocol=protocol, timeout=60) as other:
                return client.ready() and await other.ready()

        assert asyncio.run(main())


_FORK = """
import multiprocessing, sys
from serving.client import Client

protocol, url = sys.argv[1:]
unused, used = Client(url, protocol=protocol, timeout=60), Client(url, protocol=protocol, timeout=60)

def work(_):
    with Client(url, protocol=protocol, timeout=60) as new:
        return [client.ready() for client in (unused, used, new)]

assert used.ready()
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*pool.map(work, range(4)))
    print(used.ready(), unused.ready())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_uses_its_parents_clients_and_both_go_on(answering: tuple[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FORK, *answering], cwd=_ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [" ".join([str([True] * 3)] * 4), "True True"]
    assert not done.stderr


_INTERRUPTED = """
import os, signal, sys, threading, time
from serving.client import Client, Profile

# Jobs in the background of a shell start with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
client = Client(sys.argv[2], protocol=sys.argv[1], timeout=600, concurrency=1)
client._client._profile = Profile((16, 16), {})

def interrupt():
    while not client._client._slots.locked():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    client.edit("ab" * 16, {"age": 1})
except KeyboardInterrupt:
    while client._client._slots.locked():
        time.sleep(0.01)
    print("interrupted")
sweep = client.sweep("ab" * 16, "age", -1, 1, 3)
"""


@PROTOCOLS
def test_an_interrupted_call_is_cancelled_and_a_client_that_is_not_closed_does_not_keep_the_program(
    protocol: str, silent: Listener
) -> None:
    command = [sys.executable, "-c", _INTERRUPTED, protocol, silent.url]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


_ABSENT = """
import sys
import serving.client
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"tritonclient", "grpc", "gevent", "aiohttp", "torch", "onnx"}, loaded
for name in sys.argv[1:]:
    sys.modules[name] = None
from engines.errors import RuntimeUnavailableError
for kind in (serving.client.Client, serving.client.AsyncClient):
    for protocol in ("grpc", "http"):
        try:
            kind("127.0.0.1:1", protocol=protocol)
        except RuntimeUnavailableError as error:
            print(protocol, error)
"""


@pytest.mark.parametrize(("absent", "protocols"), [("tritonclient", "grpc http"), ("grpc", "grpc"), ("gevent", "http")])
def test_without_tritonclient_one_line_names_the_extra(absent: str, protocols: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ABSENT, absent], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == set(protocols.split())
    for line in done.stdout.splitlines():
        assert line.split(" ", 1)[1] == f"a client needs {absent}, which is not installed; pip install 'edgedit[serve]'"
