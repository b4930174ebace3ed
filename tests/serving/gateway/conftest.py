"""A gateway in this process whose backend is the real editor with the random bundle, or a real uvicorn on loopback."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from edgedit.demo import ASTRONAUT
from edgedit.editor import Editor
from engines.photo import open_image, read_tone
from engines.session import Inversion
from serving.client.errors import NotFoundError
from serving.client.handle import Handle
from serving.client.wire import DirectionInfo, Profile
from serving.contract import handle_of
from serving.gateway.app import create_app
from serving.gateway.backend import Backend
from serving.gateway.server import GatewayServer, bind
from serving.gateway.settings import GatewaySettings
from tests.random_bundle import RANDOM_BUNDLE


class EditorBackend:
    """The editor as a backend: it infers, holds inversions and forgets them as Triton's model does.

    `gate` holds edits up until it is set; `fault` is raised in place of an answer, `edit_fault` in place of an image.
    """

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.held: dict[str, Inversion] = {}
        self.gate: asyncio.Event | None = None
        self.fault: Exception | None = None
        self.edit_fault: Exception | None = None
        self.inversions = self.edits = self.cancelled = self.most = self._now = 0
        self._digest = editor.session.bundle.digest()

    async def __aenter__(self) -> EditorBackend:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def profile(self) -> Profile:
        self._check()
        known = {
            name: DirectionInfo(name, one.min_strength, one.max_strength, one.description)
            for name, one in self.editor.directions.items()
        }
        return Profile(self.editor.family.image_shape, known)

    async def invert(self, photo: np.ndarray, *, aligned: bool = False) -> Handle:
        self._check()
        assert aligned
        self.inversions += 1
        handle = Handle(handle_of(photo, self._digest), photo, tone=read_tone(photo))
        self.held[handle.id] = await asyncio.to_thread(self.editor.session.invert, photo[None])
        return handle

    async def edit(self, handle: Handle, edits: Mapping[str, float]) -> np.ndarray:
        self._check()
        if self.edit_fault is not None:
            raise self.edit_fault
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if handle.id not in self.held:
                if handle.crop is None:
                    raise NotFoundError("resend image")
                await self.invert(handle.crop, aligned=True)
            self.edits += 1
            if not edits:
                picture = await asyncio.to_thread(self.editor.reconstruct, self.held[handle.id])
            else:
                picture = await asyncio.to_thread(self.editor.edit, self.held[handle.id], edits)
            return handle.tone.shown(picture)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._now -= 1

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault


@pytest.fixture(scope="session")
def editor() -> Editor:
    return Editor.load(RANDOM_BUNDLE, threads=1)


@pytest.fixture
def backend(editor: Editor) -> EditorBackend:
    return EditorBackend(editor)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """uint8 260 x 260 x 3: the astronaut's face and its surroundings, larger than the model's 64 pixels."""
    return np.ascontiguousarray(open_image(ASTRONAUT).pixels[:260, 90:350])


@pytest.fixture(scope="session")
def png(photo: np.ndarray) -> bytes:
    return encoded(photo)


@pytest.fixture(scope="session")
def face_png(editor: Editor, photo: np.ndarray) -> bytes:
    """The aligned face, 64 x 64."""
    return encoded(editor.portrait(photo).aligned)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def decoded(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as image:
        return np.asarray(image.convert("RGB"))


def settings(**more: object) -> GatewaySettings:
    """Without a pause before the drain, and with room for tests that are not about rates."""
    return GatewaySettings(**{"rate": 1e4, "burst": 10_000, "drain_delay": 0.0, "port": 0, **more})  # type: ignore[arg-type]


Client = AbstractAsyncContextManager[httpx.AsyncClient]


@asynccontextmanager
async def gateway(
    backend: Backend, extend: Callable[[FastAPI], None] = lambda app: None, **limits: object
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the ASGI application itself; `client.app` is the application."""
    app = create_app(lambda: backend, settings(**limits), extend)  # type: ignore[arg-type]
    async with app.router.lifespan_context(app):
        # What is not answered is an error here, not a 500 of the transport's.
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=120) as client:
            client.app = app  # type: ignore[attr-defined]
            yield client


class Running:
    """A uvicorn on loopback in a thread."""

    def __init__(self, server: GatewayServer, app: FastAPI, port: int, thread: threading.Thread) -> None:
        self.server, self.app, self.port, self.thread = server, app, port, thread
        self.url = f"http://127.0.0.1:{port}"

    def loop_call(self, function: Callable[[], object]) -> None:
        """Calls something on the server's event loop."""
        self.loop.call_soon_threadsafe(function)

    loop: asyncio.AbstractEventLoop


@contextmanager
def served(
    backend: Backend, extend: Callable[[FastAPI], None] = lambda app: None, **limits: object
) -> Iterator[Running]:
    """Starts and stops a real server."""
    chosen = settings(**limits)
    app = create_app(lambda: backend, chosen, extend)  # type: ignore[arg-type]
    server = GatewayServer(app, chosen)
    listener = bind(chosen)
    ready = threading.Event()
    running: Running

    async def main() -> None:
        running.loop = asyncio.get_running_loop()
        ready.set()
        await server.serve([listener])

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    running = Running(server, app, listener.getsockname()[1], thread)
    thread.start()
    try:
        assert ready.wait(60)
        yield running
    finally:
        server.drain()
        server.should_exit = True
        thread.join(90)
        assert not thread.is_alive()


def problem(answer: httpx.Response, status: int, kind: str | None = None) -> dict[str, object]:
    """The body of a refusal, checked against RFC 9457 and for what it must not tell."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"type", "title", "status", "detail", "request_id"} <= set(body)
    assert body["status"] == status and body["request_id"] == answer.headers["x-request-id"]
    if kind is not None:
        assert body["type"] == f"urn:edgedit:problem:{kind}"
    for private in ("/work", ".py", "Traceback", "site-packages", str(Path.home()) + "/", " 0x"):
        assert private not in answer.text
    return body
