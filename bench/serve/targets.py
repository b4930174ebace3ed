"""The ways to ask for an edit. A target gives one call per caller, and an image to compare."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from multiprocessing.shared_memory import SharedMemory
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
    """A way to edit that is measured."""

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
        """An inversion in the session's own form."""
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


def client(address: str, transport: str, concurrency: int = 8, timeout: float = TIMEOUT) -> Client:
    """A client of the SDK that asks a server by one of the transports."""
    protocol = "http" if transport == "http" else "grpc"
    return Client(
        address, protocol=protocol, shared_memory=transport == "shm", timeout=timeout, concurrency=concurrency
    )


class Session:
    """`edit_session` through the SDK; one client for all callers."""

    def __init__(self, subject: Subject, address: str, transport: str, concurrency: int) -> None:
        self._client = client(address, transport, concurrency)
        self._edits = subject.edits
        self._handle = self._client.invert(subject.image, aligned=True)

    def calls(self, concurrency: int) -> list[Call]:
        return [lambda: self._client.edit(self._handle, self._edits)[None]] * concurrency

    def close(self) -> None:
        self._client.close()


class Tensors:
    """The model `edit` through tritonclient, with its tensors in the messages.

    Every thread has a client, since that of HTTP is for one alone; those of gRPC share a connection by themselves.

    Args:
        subject: what to edit.
        address: of the server, for the protocol.
        protocol: "grpc" or "http".
    """

    def __init__(self, subject: Subject, address: str, protocol: str = "grpc") -> None:
        self.feeds = subject.feeds()
        self.library = library(f"tritonclient.{protocol}")
        if protocol == "grpc":
            self._options: dict[str, Any] = {"channel_args": GRPC_OPTIONS}
            self._each: dict[str, Any] = {"client_timeout": TIMEOUT}
        else:
            self._options = {"connection_timeout": TIMEOUT, "network_timeout": TIMEOUT}
            self._each = {"headers": dict(HTTP_HEADERS)}
        self._address = address
        self._local = threading.local()
        self._clients: list[Any] = []

    def calls(self, concurrency: int) -> list[Call]:
        return [self._ask] * concurrency

    def close(self) -> None:
        for one in self._clients:
            one.close()
        self._clients.clear()

    @property
    def client(self) -> Any:
        """tritonclient's client of this thread."""
        if not hasattr(self._local, "client"):
            self._local.client = self.library.InferenceServerClient(self._address, **self._options)
            self._clients.append(self._local.client)
        return self._local.client

    def inputs(self) -> list[Any]:
        """The inputs of a request, without their data."""
        kind = library("tritonclient.utils").np_to_triton_dtype
        return [self.library.InferInput(name, a.shape, kind(a.dtype)) for name, a in self.feeds.items()]

    def infer(self, inputs: list[Any], output: Any) -> Any:
        """One request."""
        return self.client.infer("edit", inputs, outputs=[output], **self._each)

    def _ask(self) -> np.ndarray:
        inputs = self.inputs()
        for tensor, array in zip(inputs, self.feeds.values(), strict=True):
            tensor.set_data_from_numpy(array)
        return self.infer(inputs, self.library.InferRequestedOutput("image")).as_numpy("image")


class SharedTensors(Tensors):
    """The model `edit` over gRPC with its tensors in system shared memory; every caller has a region of its own.

    The tensors are copied into it for every request, and the image out of it.
    """

    def __init__(self, subject: Subject, address: str) -> None:
        super().__init__(subject, address)
        self._image = (1, *subject.image.shape)
        self._regions: list[SharedMemory] = []
        self._calls: list[Call] = []

    def calls(self, concurrency: int) -> list[Call]:
        while len(self._calls) < concurrency:
            self._calls.append(self._caller())
        return self._calls[:concurrency]

    def close(self) -> None:
        self._calls.clear()
        try:
            self.client.unregister_system_shared_memory(client_timeout=TIMEOUT)
        finally:
            for region in self._regions:
                region.unlink()
                region.close()
            self._regions.clear()
            super().close()

    def _caller(self) -> Call:
        offsets, end = layout(self.feeds)
        size = int(np.prod(self._image))
        region = SharedMemory(create=True, size=end + size)
        self._regions.append(region)
        name = region.name.strip("/")
        self.client.register_system_shared_memory(name, f"/{name}", end + size, client_timeout=TIMEOUT)
        inputs, output = self.inputs(), self.library.InferRequestedOutput("image")
        for tensor, array in zip(inputs, self.feeds.values(), strict=True):
            tensor.set_shared_memory(name, array.nbytes, offsets[tensor.name()])
        output.set_shared_memory(name, size, end)

        def call() -> np.ndarray:
            for key, array in self.feeds.items():
                np.ndarray(array.shape, array.dtype, region.buf, offsets[key])[...] = array
            self.infer(inputs, output)
            return np.ndarray(self._image, np.uint8, region.buf, end).copy()

        return call


def layout(feeds: Mapping[str, np.ndarray]) -> tuple[dict[str, int], int]:
    """The places where tensors begin in a region, each on a cache line of its own, and where the rest of it begins."""
    offsets: dict[str, int] = {}
    end = 0
    for name, array in feeds.items():
        offsets[name] = end
        end += -(-array.nbytes // 64) * 64
    return offsets, end
