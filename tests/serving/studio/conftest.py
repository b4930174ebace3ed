"""The studio of the random bundle: its application in this process, or a real server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from edgedit.demo import ASTRONAUT
from edgedit.editor import Editor
from serving.studio.local import LocalBackend
from serving.studio.page import attach
from tests.random_bundle import RANDOM_BUNDLE
from tests.serving.gateway.conftest import Client, Running, gateway, served

MINUTE = 60.0


@pytest.fixture(scope="session")
def editor() -> Editor:
    return Editor.load(RANDOM_BUNDLE, threads=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def backend(editor: Editor) -> LocalBackend:
    return LocalBackend(editor.session, editor.directions, seconds=MINUTE)


def studio(editor: Editor, **limits: Any) -> Client:
    """A client of the application."""
    return gateway(backend(editor), attach(ASTRONAUT), **{"photo_seconds": MINUTE, **limits})


def running(editor: Editor, **limits: Any) -> AbstractContextManager[Running]:
    """A real server; signatures hold random numbers, and here bytes are compared."""
    usual = {"photo_seconds": MINUTE, "credentials": False}
    return served(backend(editor), attach(ASTRONAUT), **{**usual, **limits})


@pytest.fixture(scope="module")
def server(editor: Editor) -> Iterator[Running]:
    with running(editor) as started:
        yield started


def edited(url: str, photo: bytes, edits: str, **fields: str) -> bytes:
    """What the HTTP interface answers for a photo that is sent along."""
    answer = httpx.post(f"{url}/v1/edits", files={"photo": photo}, data={"edits": edits, **fields}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.content
