"""Requests say which inversion they are about, so that a balancer finds the server that holds it."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.client import AsyncClient, Client
from serving.client.connection import routing
from serving.client.wire import Profile, Request
from serving.contract import HANDLE_DIGITS, HANDLE_HEADER, handle_of
from serving.local.server import LocalTriton

grpc = pytest.importorskip("grpc", reason="gRPC is not installed (pip install 'edgedit[serve]')")

CROP = np.full((64, 64, 3), 120, np.uint8)
PATIENT: dict[str, Any] = {"timeout": 240.0}


def test_a_request_is_about_its_handle_or_else_about_its_image() -> None:
    assert Request((64, 64), handle="a" * 32, image_handle="b" * 32).home == "a" * 32
    assert Request((64, 64), image=CROP, image_handle="b" * 32).home == "b" * 32
    assert Request((64, 64), image=CROP).home == ""
    assert Profile((64, 64), {}, "0" * 64).handle(CROP) == handle_of(CROP, "0" * 64)
    # As of a repository that does not say: any server will do.
    assert Profile((64, 64), {}).handle(CROP) == ""


@given(st.text(max_size=40) | st.text("0123456789abcdef", min_size=HANDLE_DIGITS, max_size=HANDLE_DIGITS))
def test_no_text_but_a_handle_becomes_a_header(text: str) -> None:
    ours = len(text) == HANDLE_DIGITS and set(text) <= set("0123456789abcdef")
    assert routing(text) == ({HANDLE_HEADER: text} if ours else {})


@pytest.mark.parametrize("text", ["a" * 32 + "\n", "a" * 31 + "\r\nx: y", "A" * 32, "a" * 33])
def test_what_would_break_a_header_is_none(text: str) -> None:
    assert routing(text) == {}


class GrpcTap(grpc.GenericRpcHandler):
    """Passes every call on to a server, and notes its method and what it is about."""

    def __init__(self, target: str) -> None:
        self.seen: list[tuple[str, str | None]] = []
        self._channel = grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)])
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((self,))
        self.url = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        self.seen.append((name, dict(details.invocation_metadata).get(HANDLE_HEADER)))
        onward = self._channel.unary_unary(details.method)
        return grpc.unary_unary_rpc_method_handler(lambda request, context: onward(request, timeout=240))

    def close(self) -> None:
        self._server.stop(None).wait()
        self._channel.close()


class HttpTap:
    """Passes every byte on to a server, and notes the path of each request and what it is about."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = host, int(port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self._said: list[bytearray] = []
        self._open: list[socket.socket] = []
        self.url = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def seen(self) -> list[tuple[str, str | None]]:
        found = []
        for said in self._said:
            for path, rest in re.findall(rb"(?:GET|POST) (\S+) HTTP/1.1\r\n(.*?)\r\n\r\n", said, re.DOTALL):
                about = re.search(rf"^{HANDLE_HEADER}: (\S+)\r?$".encode(), rest, re.MULTILINE | re.IGNORECASE)
                name = "ModelInfer" if path.endswith(b"/infer") else path.decode()
                found.append((name, about[1].decode() if about else None))
        return found

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._server.accept()[0], socket.create_connection(self._target)
                self._open += [near, far]
                said = bytearray()
                self._said.append(said)
                threading.Thread(target=self._pass, args=(near, far, said), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, bytearray()), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, noted: bytearray) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                noted += part
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in self._open:
            connection.close()


Tap = GrpcTap | HttpTap


@pytest.fixture
def tapped(triton: LocalTriton) -> Iterator[Callable[[str], Tap]]:
    made: list[Tap] = []

    def make(protocol: str) -> Tap:
        made.append(GrpcTap(triton.grpc) if protocol == "grpc" else HttpTap(triton.http))
        return made[-1]

    yield make
    for tap in made:
        tap.close()


async def _all_verbs(url: str, protocol: Any) -> str:
    async with AsyncClient(url, protocol=protocol, **PATIENT) as client:
        handle = await client.invert(CROP, aligned=True)
        await client.edit(handle, age=1)
        await client.edit_photo(CROP, {"age": 1}, aligned=True)
        assert len([frame async for frame in client.sweep(handle, "age", -1, 1, 3)]) == 3
        return handle.id


def _verbs(url: str, protocol: Any) -> str:
    with Client(url, protocol=protocol, **PATIENT) as client:
        handle = client.invert(CROP, aligned=True)
        client.edit(handle, age=1)
        client.edit_photo(CROP, {"age": 1}, aligned=True)
        assert len(list(client.sweep(handle, "age", -1, 1, 3))) == 3
        return handle.id


@pytest.mark.triton
@pytest.mark.parametrize("kind", ["threads", "asyncio"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_every_inference_says_what_it_is_about(tapped: Callable[[str], Tap], protocol: str, kind: str) -> None:
    tap = tapped(protocol)
    handle = _verbs(tap.url, protocol) if kind == "threads" else asyncio.run(_all_verbs(tap.url, protocol))
    # The inversion too, before the server has ever named it.
    about = [home for name, home in tap.seen if name == "ModelInfer"]
    assert about == [handle] * 6
    assert {home for name, home in tap.seen if name != "ModelInfer"} <= {None}
