"""A port that nobody answers on, a server that is silent, and the random bundle's editor to compare with."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedit.demo import ASTRONAUT
from edgedit.editor import Editor, Portrait
from serving.client import AsyncClient
from serving.client.deadline import Deadline
from serving.client.errors import RequestError, ServingError
from serving.client.regions import Region
from serving.client.wire import Answer, Request
from tests.random_bundle import RANDOM_BUNDLE

EDITS = {"smile": 1.5, "age": -1.0}

URL = "127.0.0.1:8001"
ID = "ab" * 16
CROP = np.full((16, 16, 3), 5, np.uint8)
IMAGE = np.full((16, 16, 3), 9, np.uint8)
CONFIG = {
    "input": [{"name": "image", "dims": [16, 16, 3]}],
    "parameters": {"directions": {"string_value": '{"smile": {"min_strength": -3, "max_strength": 3}}'}},
}


class Served:
    """A connection to a server of the test's own; inferences end as `outcomes` say, and well when there are no more."""

    url, protocol, under_way = URL, "http", 0

    def __init__(self, outcomes: list[type[ServingError] | None] | None = None, image: np.ndarray = IMAGE) -> None:
        self.outcomes = list(outcomes or [])
        self.image = image
        self.inferred: list[tuple[Request, Region | None]] = []
        self.pauses: list[float] = []
        self.registered: set[str] = set()
        self.described = 0
        self.refuse_registration: Exception | None = None
        self.in_use: set[str] = set()

    def client(self, *, shared_memory: bool, retries: int, concurrency: int = 1) -> AsyncClient:
        client = AsyncClient(
            URL, shared_memory=shared_memory, timeout=30.0, retries=retries, concurrency=concurrency, protocol="http"
        )
        client.connection = self  # type: ignore[assignment]
        if client._lender is not None:
            client._lender.connection = self  # type: ignore[assignment]
        return client

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """What a call gives; pauses between attempts are noted and take no time."""

        async def noted(seconds: float) -> None:
            self.pauses.append(seconds)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "sleep", noted)
            return asyncio.run(call)

    async def infer(self, request: Request, region: Region | None, deadline: Deadline) -> Answer:
        self.inferred.append((request, region))
        assert region is None or region.name in self.registered
        if self.outcomes and (kind := self.outcomes.pop(0)) is not None:
            raise kind("no")
        return Answer(ID, self.image if request.edits is not None else np.empty((0, 0, 3), np.uint8))

    @contextmanager
    def calling(self) -> Iterator[None]:
        yield

    async def describe(self, deadline: Deadline) -> dict[str, Any]:
        self.described += 1
        return CONFIG

    async def register(self, region: Region, deadline: Deadline) -> None:
        if self.refuse_registration is not None:
            raise self.refuse_registration
        self.registered.add(region.name)

    async def unregister(self, name: str, deadline: Deadline) -> None:
        if name in self.in_use:
            raise RequestError("currently in use")
        self.registered.discard(name)

    async def close(self) -> None:
        pass


@pytest.fixture
def closed_port() -> str:
    """host:port where nothing listens."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Listener:
    """A TCP server that treats each connection as told; not one of Triton's protocols."""

    def __init__(self, treat: Callable[[socket.socket], None]) -> None:
        self._treat = treat
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._treat(connection)

    def close(self) -> None:
        # Closing alone does not wake a thread in accept.
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        for connection in self._open:
            connection.close()


@pytest.fixture
def silent() -> Iterator[Listener]:
    """Takes connections and never says a word."""
    with closing(Listener(lambda connection: None)) as listener:
        yield listener


@pytest.fixture
def hanging_up() -> Iterator[Listener]:
    """Reads a request and closes the connection."""

    def treat(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.close()

    with closing(Listener(treat)) as listener:
        yield listener


@pytest.fixture
def breaking_off() -> Iterator[Listener]:
    """Answers HTTP with less than it promises."""

    def treat(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"name":')
        connection.close()

    with closing(Listener(treat)) as listener:
        yield listener


@pytest.fixture
def http_port() -> Iterator[str]:
    """host:port of a server that speaks HTTP/1 alone."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def curt_http_port() -> Iterator[str]:
    """host:port of a server that answers HTTP/1.x and hangs up on all else, as Triton's does."""

    def treat(connection: socket.socket) -> None:
        if b" HTTP/1." in connection.recv(1000):
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        connection.close()

    with closing(Listener(treat)) as listener:
        yield listener.url


@pytest.fixture
def grpc_port() -> Iterator[str]:
    """host:port of a server that speaks gRPC alone."""
    grpc = pytest.importorskip("grpc", reason="gRPC is not installed")
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(scope="session")
def demo() -> Editor:
    return Editor.load(RANDOM_BUNDLE, threads=1)


@pytest.fixture(scope="session")
def demo_portrait(demo: Editor) -> Portrait:
    return demo.portrait(ASTRONAUT)


@pytest.fixture(scope="session")
def edited(demo: Editor, demo_portrait: Portrait) -> Callable[[float], np.ndarray]:
    """The astronaut at a strength of age, computed in this process, once each."""
    held: dict[float, np.ndarray] = {}

    def edit(strength: float) -> np.ndarray:
        if strength not in held:
            held[strength] = demo.edit(demo_portrait.inversion, {"age": strength})
        return held[strength]

    return edit


def regions(process: int | None = None) -> set[str]:
    """What clients of a process, this one unless told, have under /dev/shm."""
    return {path.name for path in Path("/dev/shm").glob(f"edgedit_{process or os.getpid()}_*")}
