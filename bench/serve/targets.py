"""What can be asked for an edit. A target gives one call per caller, and an image to compare."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from multiprocessing.shared_memory import SharedMemory
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from engines.bundle import Bundle
from engines.directions import load_directions, resolve
from engines.session import EditSession
from serving.client import Client
from serving.client.connection import GRPC_OPTIONS, HTTP_HEADERS, library
from serving.contract import MAX_BATCH

TIMEOUT = 60.0
"""Seconds for one request."""

Call = Callable[[], np.ndarray]


class Target(Protocol):
    """Something that edits."""

    def calls(self, concurrency: int) -> list[Call]:
        """One per caller; each gives uint8 B x h x w x 3."""
        ...

    def close(self) -> None:
        """Lets go of connections and memory."""
        ...


class Subject:
    """The edit that everything is asked for: one face of noise, one unit of the bundle's first direction."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.session = EditSession(bundle, threads=threads)
        self.session.prepare("invert", "edit")
        directions = load_directions(bundle)
        self.edits = {next(iter(directions)): 1.0}
        edit = resolve(directions, self.edits, bundle.family)
        self.delta_w, self.style_delta = edit.delta_w, edit.style_delta
        self.image = np.random.default_rng(0).integers(0, 256, (*bundle.family.image_shape, 3), np.uint8)

    def inversion(self, batch: int) -> Any:
        """As the session holds it."""
        return self.session.invert(np.repeat(self.image[None], batch, 0))

    def feeds(self) -> dict[str, np.ndarray]:
        """The tensors of one edit, by the names of the graph's inputs."""
        inversion = self.inversion(1).host()
        known = {name: np.ascontiguousarray(inversion.array(name)) for name in inversion.names}
        known |= {"delta_w": self.delta_w[None], "style_delta": self.style_delta[None]}
        return {spec.name: known[spec.name] for spec in self.session.bundle.graph("edit").inputs}


class InProcess:
    """The session itself.

    Args:
        subject: what to edit.
        batched: one caller that has batches of at most `MAX_BATCH` computed until there is an image for every one of
            the callers it stands for; otherwise every caller computes its own image.
    """

    def __init__(self, subject: Subject, batched: bool) -> None:
        self._subject, self._batched = subject, batched

    def calls(self, concurrency: int) -> list[Call]:
        subject = self._subject
        batches = batches_of(concurrency) if self._batched else [1]
        inversions = {batch: subject.inversion(batch) for batch in set(batches)}

        def call() -> np.ndarray:
            done = [subject.session.edit(inversions[n], subject.delta_w, subject.style_delta) for n in batches]
            return done[0] if len(done) == 1 else np.concatenate(done)

        return [call] if self._batched else [call] * concurrency

    def close(self) -> None:
        pass


def batches_of(callers: int) -> list[int]:
    """Sizes of the batches that answer so many callers once."""
    full, rest = divmod(callers, MAX_BATCH)
    return [MAX_BATCH] * full + ([rest] if rest else [])


class Session:
    """`edit_session` through the SDK; one client for all callers."""

    def __init__(self, subject: Subject, address: str, transport: str, concurrency: int) -> None:
        protocol = "http" if transport == "http" else "grpc"
        self._client = Client(
            address, protocol=protocol, shared_memory=transport == "shm", timeout=TIMEOUT, concurrency=concurrency
        )
        self._edits = subject.edits
        self._handle = self._client.invert(subject.image, aligned=True)

    def calls(self, concurrency: int) -> list[Call]:
        return [lambda: self._client.edit(self._handle, self._edits)[None]] * concurrency

    def close(self) -> None:
        self._client.close()


class GrpcTensors:
    """The model `edit` over gRPC; one channel for all callers."""

    def __init__(self, subject: Subject, address: str) -> None:
        self._feeds = subject.feeds()
        self._service = library("tritonclient.grpc.service_pb2")
        self._channel = library("grpc").insecure_channel(address, options=GRPC_OPTIONS)
        self.stub = library("tritonclient.grpc.service_pb2_grpc").GRPCInferenceServiceStub(self._channel)

    def calls(self, concurrency: int) -> list[Call]:
        return [self._ask] * concurrency

    def close(self) -> None:
        self._channel.close()

    def _ask(self) -> np.ndarray:
        message = edit_message(self._service, self._feeds)
        message.raw_input_contents.extend(array.tobytes() for array in self._feeds.values())
        answer = self.stub.ModelInfer(message, timeout=TIMEOUT)
        return np.frombuffer(answer.raw_output_contents[0], np.uint8).reshape(answer.outputs[0].shape)


class SharedTensors:
    """The model `edit` over gRPC with its tensors in system shared memory; every caller has a region of its own.

    The tensors are copied into it for every request, and the image out of it.
    """

    def __init__(self, subject: Subject, address: str) -> None:
        self._grpc = GrpcTensors(subject, address)
        self._feeds = subject.feeds()
        self._image = (1, *subject.image.shape)
        self._service = library("tritonclient.grpc.service_pb2")
        self._regions: list[SharedMemory] = []
        self._calls: list[Call] = []

    def calls(self, concurrency: int) -> list[Call]:
        while len(self._calls) < concurrency:
            self._calls.append(self._caller())
        return self._calls[:concurrency]

    def close(self) -> None:
        self._calls.clear()
        try:
            self._grpc.stub.SystemSharedMemoryUnregister(
                self._service.SystemSharedMemoryUnregisterRequest(name=""), timeout=TIMEOUT
            )
        finally:
            for region in self._regions:
                region.unlink()
                region.close()
            self._regions.clear()
            self._grpc.close()

    def _caller(self) -> Call:
        offsets, end = layout(self._feeds)
        size = int(np.prod(self._image))
        region = SharedMemory(create=True, size=end + size)
        self._regions.append(region)
        name = region.name.strip("/")
        request = self._service.SystemSharedMemoryRegisterRequest(
            name=name, key=f"/{name}", offset=0, byte_size=end + size
        )
        self._grpc.stub.SystemSharedMemoryRegister(request, timeout=TIMEOUT)
        message = edit_message(self._service, self._feeds)
        for tensor, array in zip(message.inputs, self._feeds.values(), strict=True):
            _place(tensor, name, offsets[tensor.name], array.nbytes)
        _place(message.outputs[0], name, end, size)

        def call() -> np.ndarray:
            for key, array in self._feeds.items():
                np.ndarray(array.shape, array.dtype, region.buf, offsets[key])[...] = array
            self._grpc.stub.ModelInfer(message, timeout=TIMEOUT)
            return np.ndarray(self._image, np.uint8, region.buf, end).copy()

        return call


class HttpTensors:
    """The model `edit` over HTTP; a connection for every thread, since tritonclient's is for one alone."""

    def __init__(self, subject: Subject, address: str) -> None:
        self._feeds, self._address = subject.feeds(), address
        self._library = library("tritonclient.http")
        self._local = threading.local()
        self._clients: list[Any] = []

    def calls(self, concurrency: int) -> list[Call]:
        return [self._ask] * concurrency

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()

    def _ask(self) -> np.ndarray:
        if not hasattr(self._local, "client"):
            self._local.client = self._library.InferenceServerClient(
                self._address, connection_timeout=TIMEOUT, network_timeout=TIMEOUT
            )
            self._clients.append(self._local.client)
        inputs = []
        for name, array in self._feeds.items():
            tensor = self._library.InferInput(
                name, array.shape, library("tritonclient.utils").np_to_triton_dtype(array.dtype)
            )
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        outputs = [self._library.InferRequestedOutput("image")]
        answer = self._local.client.infer("edit", inputs, outputs=outputs, headers=dict(HTTP_HEADERS))
        return answer.as_numpy("image")


def edit_message(service: ModuleType, feeds: Mapping[str, np.ndarray]) -> Any:
    """A ModelInferRequest of `edit` without its data; `service` is tritonclient.grpc.service_pb2."""
    message = service.ModelInferRequest(model_name="edit")
    for name, array in feeds.items():
        tensor = message.inputs.add(name=name, datatype=library("tritonclient.utils").np_to_triton_dtype(array.dtype))
        tensor.shape.extend(array.shape)
    message.outputs.add(name="image")
    return message


def layout(feeds: Mapping[str, np.ndarray]) -> tuple[dict[str, int], int]:
    """Where each tensor begins in a region, on a cache line of its own, and where the rest of it does."""
    offsets: dict[str, int] = {}
    end = 0
    for name, array in feeds.items():
        offsets[name] = end
        end += -(-array.nbytes // 64) * 64
    return offsets, end


def _place(tensor: Any, region: str, offset: int, size: int) -> None:
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_offset"].int64_param = offset
    tensor.parameters["shared_memory_byte_size"].int64_param = size
