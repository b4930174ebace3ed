"""Requests that block the calling thread, over gRPC or HTTP."""

from __future__ import annotations

import queue
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

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

STREAM_END_SECONDS = 1.0
"""How long a stream on which nothing is under way may take to end by itself."""


class GrpcTransport:
    """One gRPC channel for all threads.

    Raises:
        RuntimeUnavailableError: if tritonclient or gRPC is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.library = library("tritonclient.grpc")
        self.service = library("tritonclient.grpc.service_pb2")
        self._channel = library("grpc").insecure_channel(url, options=GRPC_OPTIONS)
        self.stub = library("tritonclient.grpc.service_pb2_grpc").GRPCInferenceServiceStub(self._channel)

    def infer(self, request: Request, region: Region | None, deadline: Deadline) -> Answer:
        """One inference.

        Raises:
            ServingError: one of its kinds, as all of these methods.
        """
        with translated(self.url):
            message = grpc_message(self.service, request, region)
            metadata = tuple(routing(request.home).items())
            response = self.stub.ModelInfer(message, timeout=deadline.left(), metadata=metadata)
            return read_answer(self.library.InferResult(response), request, region)

    def describe(self, deadline: Deadline) -> dict[str, Any]:
        """The configuration of `edit_session`."""
        with translated(self.url):
            response = self.stub.ModelConfig(
                self.service.ModelConfigRequest(name=EDIT_SESSION), timeout=deadline.left()
            )
            return library("google.protobuf.json_format").MessageToDict(
                response.config, preserving_proto_field_name=True
            )

    def ready(self, deadline: Deadline) -> bool:
        """Whether the server says that `edit_session` is ready."""
        with translated(self.url):
            request = self.service.ModelReadyRequest(name=EDIT_SESSION)
            return bool(self.stub.ModelReady(request, timeout=deadline.left()).ready)

    def register(self, region: Region, deadline: Deadline) -> None:
        """Has the server map a region."""
        with translated(self.url):
            request = self.service.SystemSharedMemoryRegisterRequest(
                name=region.name, key=region.key, offset=0, byte_size=region.bytes
            )
            self.stub.SystemSharedMemoryRegister(request, timeout=deadline.left())

    def unregister(self, name: str, deadline: Deadline) -> None:
        """Has the server unmap a region."""
        with translated(self.url):
            request = self.service.SystemSharedMemoryUnregisterRequest(name=name)
            self.stub.SystemSharedMemoryUnregister(request, timeout=deadline.left())

    def stream(self, home: str) -> GrpcStream:
        """Opens a bidirectional stream for requests about one inversion."""
        return GrpcStream(self, home)

    def close(self) -> None:
        """Closes the channel; what is under way fails."""
        self._channel.close()


class GrpcStream:
    """Requests sent ahead of their answers, which come in the same order. For one thread.

    The answers are taken off the stream as they come, so that neither slots nor regions wait for a slow caller.
    """

    def __init__(self, transport: GrpcTransport, home: str) -> None:
        self._transport = transport
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._pending: deque[tuple[Request, Lease]] = deque()
        self._answers: queue.SimpleQueue[Answer | ServingError] = queue.SimpleQueue()
        with translated(transport.url):
            metadata = tuple(routing(home).items())
            self._call = transport.stub.ModelStreamInfer(iter(self._requests.get, None), metadata=metadata)
        self._reader = threading.Thread(target=self._read, name="edgedit-stream", daemon=True)
        self._reader.start()

    def send(self, request: Request, lease: Lease) -> None:
        """Sends a request; the lease ends when its answer is there, or with the stream."""
        message = grpc_message(self._transport.service, request, lease.region)
        self._pending.append((request, lease))
        self._requests.put(message)

    def answer(self, deadline: Deadline) -> Answer:
        """The next answer.

        Raises:
            FrameError: if this request failed. Triton can give it a status (`triton_grpc_error`), but 2.51 does not
                survive two such errors on one stream: who asks again by itself gets the status.
            ServingError: if the stream is over.
        """
        try:
            answer = self._answers.get(timeout=deadline.left())
        except queue.Empty:
            raise deadline.error() from None
        if isinstance(answer, ServingError):
            raise answer
        return answer

    def close(self) -> None:
        """Ends the stream, and cancels what is under way."""
        self._requests.put(None)
        if not self._pending:
            self._reader.join(STREAM_END_SECONDS)
        if self._reader.is_alive():
            self._call.cancel()
            self._reader.join()
        self._drop()

    def _drop(self) -> None:
        """Ends all leases; the server may still be at work on any of them."""
        with suppress(IndexError):
            while True:
                self._pending.popleft()[1].end(ServingError("the stream is over"))

    def _read(self) -> None:
        url, result_type = self._transport.url, self._transport.library.InferResult
        try:
            for response in self._call:
                request, lease = self._pending.popleft()
                if response.error_message:
                    error = FrameError(f"{url} failed on a frame; its log says more")
                    lease.end(error)
                    self._answers.put(error)
                    continue
                try:
                    answer = read_answer(result_type(response.infer_response), request, lease.region)
                except BaseException as error:
                    lease.end(error)
                    raise
                lease.end()
                self._answers.put(answer)
            raise EOFError("the stream ended")
        except Exception as error:
            self._drop()
            self._answers.put(translate(error, url))


class HttpTransport:
    """One HTTP connection per thread, since tritonclient's is for one thread alone.

    Raises:
        RuntimeUnavailableError: if tritonclient or its HTTP library is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._library = library("tritonclient.http")
        self._gevent = library("gevent")
        self._local = threading.local()
        self._all: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()

    def infer(self, request: Request, region: Region | None, deadline: Deadline) -> Answer:
        """See `GrpcTransport.infer`."""
        with self._client(deadline) as client:
            return read_answer(client.infer(**http_arguments(self._library, request, region)), request, region)

    def describe(self, deadline: Deadline) -> dict[str, Any]:
        """See `GrpcTransport.describe`."""
        with self._client(deadline) as client:
            return client.get_model_config(EDIT_SESSION, headers=dict(HTTP_HEADERS))

    def ready(self, deadline: Deadline) -> bool:
        """See `GrpcTransport.ready`."""
        with self._client(deadline) as client:
            return bool(client.is_model_ready(EDIT_SESSION))

    def register(self, region: Region, deadline: Deadline) -> None:
        """See `GrpcTransport.register`."""
        with self._client(deadline) as client:
            client.register_system_shared_memory(region.name, region.key, region.bytes)

    def unregister(self, name: str, deadline: Deadline) -> None:
        """See `GrpcTransport.unregister`."""
        with self._client(deadline) as client:
            client.unregister_system_shared_memory(name)

    def close(self) -> None:
        """Closes the connections of all threads."""
        with self._lock:
            clients, self._all = list(self._all), weakref.WeakSet()
        for client in clients:
            client.close()

    @contextmanager
    def _client(self, deadline: Deadline) -> Iterator[Any]:
        """This thread's client. After a failure of the connection the next request makes another one."""
        client = getattr(self._local, "client", None)
        if client is None:
            # Times are those of the deadline, which ends waits of any length.
            client = self._library.InferenceServerClient(self.url, connection_timeout=None, network_timeout=None)
            with self._lock:
                self._all.add(client)
            self._local.client = client
        try:
            with translated(self.url), self._gevent.Timeout(deadline.left(), TimeoutError("timed out")):
                yield client
        except BaseException as error:
            if not isinstance(error.__cause__, self._refusal()):
                self._local.client = None
                client.close()
            raise

    def _refusal(self) -> type[BaseException]:
        """What says that the server has answered, and the connection is sound."""
        return library("tritonclient.utils").InferenceServerException
