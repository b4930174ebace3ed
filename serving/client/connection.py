"""Requests to a server over gRPC or HTTP: tritonclient's clients for asyncio, with deadlines and one set of errors."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import ModuleType
from typing import Any, Literal

import numpy as np

from engines.errors import RuntimeUnavailableError
from serving.client.deadline import Deadline
from serving.client.errors import CLOSED, CLOSED_MEANWHILE, RequestError, ServingError, UnavailableError
from serving.client.regions import Region
from serving.client.translate import translate
from serving.client.wire import Answer, Request, read_answer
from serving.contract import EDIT_SESSION, EDITS, HANDLE, HANDLE_DIGITS, HANDLE_HEADER, IMAGE

Protocol = Literal["grpc", "http"]

HTTP_HEADERS = {"Accept-Encoding": "identity"}
"""Triton compresses what it may, which takes longer than sending it."""

GRPC_OPTIONS = (
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # A server that was restarted is found again within a second, not within gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # As with HTTP here, proxies of the environment are not for one's own server.
    ("grpc.enable_http_proxy", 0),
)

_ROUTABLE = re.compile(rf"[0-9a-f]{{{HANDLE_DIGITS}}}")


def library(name: str) -> ModuleType:
    """A module of tritonclient or below it, imported when a client is made; RuntimeUnavailableError without it."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        # tritonclient says with a RuntimeError that what it builds on cannot be imported.
        reason = error if isinstance(error, ImportError) else error.__cause__ or error.__context__
        missing = (getattr(reason, "name", None) or name).partition(".")[0]
        raise RuntimeUnavailableError(
            f"a client needs {missing}, which is not installed; pip install 'edgedit[serve]'"
        ) from error


def routing(home: str) -> dict[str, str]:
    """Headers, or gRPC metadata, that send a request to the server that holds an inversion. Anybody's text may be given
    as a handle; what cannot be one goes to any server, which says so."""
    return {HANDLE_HEADER: home} if _ROUTABLE.fullmatch(home) else {}


def inference(library: ModuleType, request: Request, region: Region | None) -> dict[str, Any]:
    """Arguments of tritonclient's `infer`; `library` is tritonclient.grpc or tritonclient.http. With a region, images
    lie there: the one sent at its start, the one asked for after it."""
    inputs, outputs = [], []
    if request.image is not None:
        tensor = library.InferInput(IMAGE, [1, *request.image.shape], "UINT8")
        if region is None:
            tensor.set_data_from_numpy(np.ascontiguousarray(request.image[None]))
        else:
            region.write(request.image)
            tensor.set_shared_memory(region.name, request.image.nbytes)
        inputs.append(tensor)
        outputs.append(library.InferRequestedOutput(HANDLE))
    for name, text in ((HANDLE, request.handle), (EDITS, request.edits)):
        if text is not None:
            tensor = library.InferInput(name, [1, 1], "BYTES")
            tensor.set_data_from_numpy(np.array([[text.encode()]], np.object_))
            inputs.append(tensor)
    if request.edits is not None:
        output = library.InferRequestedOutput(IMAGE)
        if region is not None:
            output.set_shared_memory(region.name, request.image_bytes, request.image_bytes)
        outputs.append(output)
    return {"model_name": EDIT_SESSION, "inputs": inputs, "outputs": outputs}


class Connection:
    """A gRPC channel, or pooled HTTP connections, made in the event loop that first asks for them.

    Raises:
        RequestError: for a URL or protocol that cannot be.
        RuntimeUnavailableError: if tritonclient, or what it builds on, is not installed.
    """

    def __init__(self, url: str, protocol: Protocol) -> None:
        if protocol not in ("grpc", "http"):
            raise RequestError(f"protocol must be grpc or http, got {protocol!r}")
        if not isinstance(url, str) or not url.rpartition(":")[2].isdigit() or "/" in url:
            raise RequestError(f"{url!r} is not a server's host:port, such as 127.0.0.1:8001")
        self.url = url
        self.protocol: Protocol = protocol
        self.under_way = 0
        """Calls and sweeps."""
        self.library = library(f"tritonclient.{protocol}")
        self._aio = library(f"tritonclient.{protocol}.aio")
        self._triton: Any = None
        self._closed = False

    async def infer(self, request: Request, region: Region | None, deadline: Deadline) -> Answer:
        """One inference; as all of these methods it raises some kind of ServingError."""
        async with self._client(deadline) as triton:
            arguments = inference(self.library, request, region)
            if self.protocol == "grpc":
                # The server then knows, too, when nobody waits for the answer any more.
                result = await triton.infer(**arguments, client_timeout=deadline.left(), headers=routing(request.home))
            else:
                result = await triton.infer(**arguments, headers=HTTP_HEADERS | routing(request.home))
            return read_answer(result, request, region)

    async def describe(self, deadline: Deadline) -> dict[str, Any]:
        """The configuration of `edit_session`."""
        async with self._client(deadline) as triton:
            if self.protocol == "grpc":
                return (await triton.get_model_config(EDIT_SESSION, as_json=True))["config"]
            return await triton.get_model_config(EDIT_SESSION, headers=dict(HTTP_HEADERS))

    async def ready(self, deadline: Deadline) -> bool:
        """Whether the server says that `edit_session` is ready."""
        async with self._client(deadline) as triton:
            return bool(await triton.is_model_ready(EDIT_SESSION))

    async def register(self, region: Region, deadline: Deadline) -> None:
        """Has the server map a region."""
        async with self._client(deadline) as triton:
            await triton.register_system_shared_memory(region.name, f"/{region.name}", 2 * region.size)

    async def unregister(self, name: str, deadline: Deadline) -> None:
        """Has the server unmap a region."""
        async with self._client(deadline) as triton:
            await triton.unregister_system_shared_memory(name)

    async def disconnect(self) -> None:
        """Closes all connections; what is under way fails. The next call makes them anew."""
        triton, self._triton = self._triton, None
        if triton is not None:
            await triton.close()

    async def close(self) -> None:
        """Closes all connections for good."""
        self._closed = True
        await self.disconnect()

    @asynccontextmanager
    async def _client(self, deadline: Deadline) -> AsyncIterator[Any]:
        with self.calling():
            async with deadline.limit():
                yield self.triton()

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Counts a call as under way, and raises the client's errors for any other."""
        self.under_way += 1
        try:
            yield
        except asyncio.CancelledError:
            # So gRPC ends what was under way when its channel was closed, though nobody has cancelled this task.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise UnavailableError(CLOSED_MEANWHILE) from None
        except Exception as error:
            translation = translate(error, self.url)
            if translation is error:
                raise
            raise translation from error
        finally:
            self.under_way -= 1

    def triton(self) -> Any:
        """tritonclient's client."""
        if self._closed:
            raise ServingError(CLOSED)
        if self._triton is None:
            client = self._aio.InferenceServerClient
            # Time and number of connections are limited by deadlines and by the client's slots.
            self._triton = (
                client(self.url, channel_args=GRPC_OPTIONS)
                if self.protocol == "grpc"
                else client(self.url, conn_limit=0, conn_timeout=None)
            )
        return self._triton
