"""Requests for asyncio, over gRPC or HTTP. Connections are made in the event loop that first asks for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from serving.client.blocking import STREAM_END_SECONDS
from serving.client.core import Lease
from serving.client.deadline import Deadline
from serving.client.errors import FrameError, ServingError
from serving.client.libraries import (
    GRPC_OPTIONS,
    HTTP_HEADERS,
    grpc_message,
    http_arguments,
    library,
    routing,
    translated,
)
from serving.client.regions import Region
from serving.client.translate import translate
from serving.client.wire import Answer, Request, read_answer
from serving.contract import EDIT_SESSION


class AsyncGrpcTransport:
    """One gRPC channel.

    Raises:
        RuntimeUnavailableError: if tritonclient or gRPC is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.library = library("tritonclient.grpc")
        self.service = library("tritonclient.grpc.service_pb2")
        self._aio = library("grpc.aio")
        self._stubs = library("tritonclient.grpc.service_pb2_grpc")
        self._channel: Any = None
        self._stub: Any = None

    @property
    def stub(self) -> Any:
        """The service's methods."""
        if self._channel is None:
            self._channel = self._aio.insecure_channel(self.url, options=GRPC_OPTIONS)
            self._stub = self._stubs.GRPCInferenceServiceStub(self._channel)
        return self._stub

    async def infer(self, request: Request, region: Region | None, deadline: Deadline) -> Answer:
        """One inference.

        Raises:
            ServingError: one of its kinds, as all of these methods.
        """
        with translated(self.url):
            message = grpc_message(self.service, request, region)
            metadata = tuple(routing(request.home).items())
            response = await self.stub.ModelInfer(message, timeout=deadline.left(), metadata=metadata)
            return read_answer(self.library.InferResult(response), request, region)

    async def describe(self, deadline: Deadline) -> dict[str, Any]:
        """The configuration of `edit_session`."""
        with translated(self.url):
            request = self.service.ModelConfigRequest(name=EDIT_SESSION)
            response = await self.stub.ModelConfig(request, timeout=deadline.left())
            return library("google.protobuf.json_format").MessageToDict(
                response.config, preserving_proto_field_name=True
            )

    async def ready(self, deadline: Deadline) -> bool:
        """Whether the server says that `edit_session` is ready."""
        with translated(self.url):
            request = self.service.ModelReadyRequest(name=EDIT_SESSION)
            return bool((await self.stub.ModelReady(request, timeout=deadline.left())).ready)

    async def register(self, region: Region, deadline: Deadline) -> None:
        """Has the server map a region."""
        with translated(self.url):
            request = self.service.SystemSharedMemoryRegisterRequest(
                name=region.name, key=region.key, offset=0, byte_size=region.bytes
            )
            await self.stub.SystemSharedMemoryRegister(request, timeout=deadline.left())

    async def unregister(self, name: str, deadline: Deadline) -> None:
        """Has the server unmap a region."""
        with translated(self.url):
            request = self.service.SystemSharedMemoryUnregisterRequest(name=name)
            await self.stub.SystemSharedMemoryUnregister(request, timeout=deadline.left())

    def stream(self, home: str) -> AsyncGrpcStream:
        """Opens a bidirectional stream for requests about one inversion."""
        return AsyncGrpcStream(self, home)

    async def close(self) -> None:
        """Closes the channel; what is under way fails."""
        if self._channel is not None:
            await self._channel.close()


class AsyncGrpcStream:
    """As `blocking.GrpcStream`, for one task."""

    def __init__(self, transport: AsyncGrpcTransport, home: str) -> None:
        self._transport = transport
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._pending: deque[tuple[Request, Lease]] = deque()
        self._answers: asyncio.Queue[Answer | ServingError] = asyncio.Queue()
        with translated(transport.url):
            metadata = tuple(routing(home).items())
            self._call = transport.stub.ModelStreamInfer(self._outgoing(), metadata=metadata)
        self._reader = asyncio.create_task(self._read())

    def send(self, request: Request, lease: Lease) -> None:
        """Sends a request; the lease ends when its answer is there, or with the stream."""
        message = grpc_message(self._transport.service, request, lease.region)
        self._pending.append((request, lease))
        self._requests.put_nowait(message)

    async def answer(self, deadline: Deadline) -> Answer:
        """The next answer.

        Raises:
            FrameError: if this request failed. Triton can give it a status (`triton_grpc_error`), but 2.51 does not
                survive two such errors on one stream: who asks again by itself gets the status.
            ServingError: if the stream is over.
        """
        try:
            async with asyncio.timeout(deadline.left()):
                answer = await self._answers.get()
        except TimeoutError:
            raise deadline.error() from None
        if isinstance(answer, ServingError):
            raise answer
        return answer

    async def close(self) -> None:
        """Ends the stream, and cancels what is under way."""
        self._requests.put_nowait(None)
        try:
            if not self._pending:
                await asyncio.wait([self._reader], timeout=STREAM_END_SECONDS)
        finally:
            # Also when this is itself cancelled, as at the end of a task.
            if not self._reader.done():
                self._call.cancel()
                self._reader.cancel()
            self._drop()

    async def _outgoing(self) -> AsyncIterator[Any]:
        while (message := await self._requests.get()) is not None:
            yield message

    async def _read(self) -> None:
        url, result_type = self._transport.url, self._transport.library.InferResult
        try:
            async for response in self._call:
                request, lease = self._pending.popleft()
                if response.error_message:
                    error = FrameError(f"{url} failed on a frame; its log says more")
                    lease.end(error)
                    self._answers.put_nowait(error)
                    continue
                try:
                    answer = read_answer(result_type(response.infer_response), request, lease.region)
                except BaseException as error:
                    lease.end(error)
                    raise
                lease.end()
                self._answers.put_nowait(answer)
            raise EOFError("the stream ended")
        except Exception as error:
            self._drop()
            self._answers.put_nowait(translate(error, url))

    def _drop(self) -> None:
        """Ends all leases; the server may still be at work on any of them."""
        with suppress(IndexError):
            while True:
                self._pending.popleft()[1].end(ServingError("the stream is over"))


class AsyncHttpTransport:
    """Pooled HTTP connections.

    Raises:
        RuntimeUnavailableError: if tritonclient or its HTTP library is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._library = library("tritonclient.http")
        self._aio = library("tritonclient.http.aio")
        self._made: Any = None

    async def infer(self, request: Request, region: Region | None, deadline: Deadline) -> Answer:
        """See `AsyncGrpcTransport.infer`."""
        async with self._client(deadline) as client:
            arguments = http_arguments(self._library, request, region)
            return read_answer(await client.infer(**arguments), request, region)

    async def describe(self, deadline: Deadline) -> dict[str, Any]:
        """See `AsyncGrpcTransport.describe`."""
        async with self._client(deadline) as client:
            return await client.get_model_config(EDIT_SESSION, headers=dict(HTTP_HEADERS))

    async def ready(self, deadline: Deadline) -> bool:
        """See `AsyncGrpcTransport.ready`."""
        async with self._client(deadline) as client:
            return bool(await client.is_model_ready(EDIT_SESSION))

    async def register(self, region: Region, deadline: Deadline) -> None:
        """See `AsyncGrpcTransport.register`."""
        async with self._client(deadline) as client:
            await client.register_system_shared_memory(region.name, region.key, region.bytes)

    async def unregister(self, name: str, deadline: Deadline) -> None:
        """See `AsyncGrpcTransport.unregister`."""
        async with self._client(deadline) as client:
            await client.unregister_system_shared_memory(name)

    async def close(self) -> None:
        """Closes all connections; what is under way fails."""
        if self._made is not None:
            await self._made.close()

    @asynccontextmanager
    async def _client(self, deadline: Deadline) -> AsyncIterator[Any]:
        if self._made is None:
            # Time and number of connections are limited by the deadline and the slots.
            self._made = self._aio.InferenceServerClient(self.url, conn_limit=0, conn_timeout=None)
        with translated(self.url):
            async with asyncio.timeout(deadline.left()):
                yield self._made
