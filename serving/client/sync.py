"""The client for threads."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from numbers import Integral
from typing import Any, Literal, Self, TypeVar

import numpy as np

from engines.photo import PasteMode
from engines.photo.images import Source
from serving.client.blocking import GrpcStream, GrpcTransport, HttpTransport
from serving.client.core import Core, as_handle
from serving.client.deadline import Backoff
from serving.client.effects import Compute, Describe, Effect, Flow, Infer, Pause, Register, Slot, Unregister
from serving.client.errors import FrameError, RequestError, ServingError
from serving.client.frames import Frames
from serving.client.handle import Handle
from serving.client.sweeps import WINDOW, Sweep, merged, recovery
from serving.client.wire import DirectionInfo, Profile

Protocol = Literal["grpc", "http"]
Transport = GrpcTransport | HttpTransport
T = TypeVar("T")


class Client:
    """Edits photos on a Triton server whose repository `edgedit serve repo` wrote; all methods are thread-safe.

    Photos are decoded and faces found here; only the aligned face, as small as the model takes it, is sent.

    Args:
        url: host:port of the server, of the protocol's port.
        protocol: "grpc" or "http".
        shared_memory: let images go through memory shared with a server on the same machine.
        timeout: seconds for a call, waiting and repetitions included, that is given no `timeout` of its own.
        retries: how often a call is made again after the server was unavailable or overloaded.
        concurrency: requests under way at most; further calls wait.

    Raises:
        RequestError: for an argument that cannot be.
        RuntimeUnavailableError: if tritonclient is not installed.
    """

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        *,
        protocol: Protocol = "grpc",
        shared_memory: bool = False,
        timeout: float = 10.0,
        retries: int = 2,
        concurrency: int = 8,
    ) -> None:
        check_choice(protocol, concurrency)
        self._slots = threading.Semaphore(concurrency)
        self._core = Core(url, self._slots, shared_memory=shared_memory, timeout=timeout, retries=retries)
        self._transport: Transport = GrpcTransport(url) if protocol == "grpc" else HttpTransport(url)
        self._workers: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._concurrency = concurrency
        self._at_exit = weakref.finalize(self, finish, self._core, self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections and removes all shared memory; calls under way fail, over HTTP by their deadline."""
        with self._lock:
            self._core.closed = True
            workers, self._workers = self._workers, None
        if workers is not None:
            workers.shutdown(cancel_futures=True)
        self._at_exit()

    def ready(self, *, timeout: float | None = None) -> bool:
        """Whether the server can be reached and says that it is ready."""
        if self._core.closed:
            return False
        with suppress(ServingError):
            return self._transport.ready(self._core.deadline(timeout))
        return False

    def profile(self, *, timeout: float | None = None) -> Profile:
        """What the server says of its model now: its directions and the shape of its images.

        Raises:
            ServingError: one of its kinds.
        """
        return self._run(self._core.profile(self._core.deadline(timeout), fresh=True))

    def directions(self, *, timeout: float | None = None) -> dict[str, DirectionInfo]:
        """The server's directions by name, in its order.

        Raises:
            ServingError: one of its kinds.
        """
        return dict(self.profile(timeout=timeout).directions)

    def invert(
        self, photo: Source, *, aligned: bool = False, face: int | None = None, timeout: float | None = None
    ) -> Handle:
        """Inverts one face of a photo; edits of it cost no inversion again.

        Args:
            photo: a path, the bytes of an image file, a file object, a Pillow image, or a uint8 H x W x 3 RGB array.
            aligned: the image is an FFHQ-aligned face already and is only resized.
            face: which face of a photo with several, 0 the largest; None takes the largest.
            timeout: seconds for this call.

        Raises:
            ImageError: if the photo cannot be read or, as NoFaceError, has no such face.
            ServingError: one of its kinds.
        """
        return self._run(self._core.invert(photo, aligned, face, self._core.deadline(timeout)))

    def edit(
        self,
        handle: Handle | str,
        edits: Mapping[str, float] | None = None,
        *,
        clamp: bool = False,
        timeout: float | None = None,
        **strengths: float,
    ) -> np.ndarray:
        """An edited face, uint8 S x S x 3, as `client.edit(handle, smile=2)` or with a mapping.

        It is the model's own picture: `edit_photo` brings back the light and colours of a dark or toned photo.

        Args:
            handle: from `invert`; the id of one works while the server still holds its inversion.
            edits: strength by direction; several are added up.
            clamp: limit strengths to the directions' usable ranges.
            timeout: seconds for this call.
            strengths: more edits.

        Raises:
            RequestError: for an unknown direction, a strength that is not finite, or a direction given twice.
            ServingError: one of its other kinds.

        Warns:
            StrengthWarning: for a strength outside its direction's usable range.
        """
        deadline = self._core.deadline(timeout)
        return self._run(self._core.edit(handle, merged(edits, strengths), clamp, deadline))

    def reconstruct(self, handle: Handle | str, *, timeout: float | None = None) -> np.ndarray:
        """The inverted face without an edit, uint8 S x S x 3; errors as `edit`."""
        return self._run(self._core.edit(handle, {}, False, self._core.deadline(timeout)))

    def edit_photo(
        self,
        photo: Source,
        edits: Mapping[str, float],
        *,
        aligned: bool = False,
        face: int | None = None,
        clamp: bool = False,
        mode: PasteMode = "auto",
        timeout: float | None = None,
    ) -> np.ndarray:
        """Finds a face, edits it and puts it back.

        Args:
            photo, aligned, face: as `invert`.
            edits, clamp: as `edit`.
            mode: how the face is put back, see `engines.photo.paste_back`.
            timeout: seconds for this call.

        Returns:
            uint8 H x W x 3, RGB, upright: the photo's size, or S x S x 3 of an aligned face.

        Raises:
            ImageError, ServingError: as `invert` and `edit`.
        """
        deadline = self._core.deadline(timeout)
        return self._run(self._core.edit_photo(photo, edits, aligned, face, clamp, mode, deadline))

    def sweep(
        self,
        handle: Handle | str,
        direction: str,
        start: float,
        stop: float,
        steps: int,
        *,
        timeout: float | None = None,
    ) -> Iterator[tuple[float, np.ndarray]]:
        """One direction at `steps` strengths from `start` to `stop`, both included.

        Frames are computed ahead of the one that is taken. Ending the iteration cancels them.

        Args:
            handle: as `edit`.
            direction: which one.
            start, stop: strengths.
            steps: how many.
            timeout: seconds for each frame, from when it is waited for.

        Returns:
            (strength, uint8 S x S x 3) in order.

        Raises:
            RequestError: at once, for arguments that cannot be; the rest as `edit`, while iterating.
        """
        sweep = Sweep(as_handle(handle), direction, start, stop, steps)
        self._core.deadline(timeout)
        window = min(self._concurrency, WINDOW)
        if isinstance(self._transport, GrpcTransport):
            return self._streamed(self._transport, sweep, window, timeout)
        return self._pipelined(sweep, window, timeout)

    def _streamed(
        self, transport: GrpcTransport, sweep: Sweep, window: int, timeout: float | None
    ) -> Iterator[tuple[float, np.ndarray]]:
        core = self._core
        profile = self._run(core.profile(core.deadline(timeout)))
        sweep.warn(profile)
        frames = Frames(len(sweep), window)
        stream: GrpcStream | None = None
        backoff, deadline = Backoff(core.retries), core.deadline(timeout)
        try:
            while not frames.done:
                try:
                    if stream is None:
                        stream = transport.stream(sweep.handle.id)
                    while (asked := frames.ask()) is not None:
                        request = sweep.request(profile, asked)
                        lease = self._run(core.lease(request, deadline, wait=frames.waiting == 1))
                        if lease is None:
                            frames.unask()
                            break
                        stream.send(request, lease)
                    image = stream.answer(deadline).image
                except FrameError:
                    # By itself it is sent again with the photo if that is what is missing, and its error has a status.
                    request = sweep.request(profile, frames.next)
                    image = self._run(core.ask(request, sweep.handle.crop, deadline)).image
                except ServingError as error:
                    if stream is not None:
                        stream.close()
                        stream = None
                    if pause := recovery(core, frames, backoff, deadline, error):
                        time.sleep(pause)
                    continue
                yield sweep.strengths[frames.take()], image
                backoff, deadline = Backoff(core.retries), core.deadline(timeout)
        finally:
            if stream is not None:
                stream.close()

    def _pipelined(self, sweep: Sweep, window: int, timeout: float | None) -> Iterator[tuple[float, np.ndarray]]:
        waiting: deque[tuple[float, Future[np.ndarray]]] = deque()
        profile = self._run(self._core.profile(self._core.deadline(timeout)))
        sweep.warn(profile)
        frames = Frames(len(sweep), window)
        try:
            while not frames.done:
                while (asked := frames.ask()) is not None:
                    request = sweep.request(profile, asked)
                    work = partial(self._frame, request, sweep.handle.crop, timeout)
                    waiting.append((sweep.strengths[asked], self._executor().submit(work)))
                strength, future = waiting.popleft()
                image = future.result()
                frames.take()
                yield strength, image
        finally:
            for _, future in waiting:
                future.cancel()

    def _frame(self, request: Any, crop: np.ndarray | None, timeout: float | None) -> np.ndarray:
        return self._run(self._core.ask(request, crop, self._core.deadline(timeout))).image

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._core.closed:
                raise ServingError("this client is closed; make another one")
            if self._workers is None:
                self._workers = ThreadPoolExecutor(self._concurrency, "edgedit-client")
            return self._workers

    def _run(self, flow: Flow[T]) -> T:
        return run(flow, self._transport, self._slots)


def run(flow: Flow[T], transport: Transport, slots: threading.Semaphore) -> T:
    """Runs a flow of the core to its end."""
    step: Any = flow.send
    value: Any = None
    while True:
        try:
            effect = step(value)
        except StopIteration as done:
            return done.value
        try:
            step, value = flow.send, _perform(effect, transport, slots)
        except BaseException as error:
            step, value = flow.throw, error


def _perform(effect: Effect, transport: Transport, slots: threading.Semaphore) -> Any:
    match effect:
        case Slot(deadline, wait):
            if not wait:
                return slots.acquire(blocking=False)
            if not slots.acquire(timeout=deadline.left()):
                raise deadline.error()
            return True
        case Infer(request, region, deadline):
            return transport.infer(request, region, deadline)
        case Pause(seconds):
            return time.sleep(seconds)
        case Compute(function):
            return function()
        case Describe(deadline):
            return transport.describe(deadline)
        case Register(region, deadline):
            return transport.register(region, deadline)
        case Unregister(name, deadline):
            return transport.unregister(name, deadline)


def finish(core: Core, transport: Transport) -> None:
    """Closes the core of a client, and then its connections."""
    with suppress(ServingError):
        run(core.close(), transport, threading.Semaphore())
    transport.close()


def check_choice(protocol: str, concurrency: int) -> None:
    """Checks what both clients are made with.

    Raises:
        RequestError: for what cannot be.
    """
    if protocol not in ("grpc", "http"):
        raise RequestError(f"protocol must be grpc or http, got {protocol!r}")
    if isinstance(concurrency, bool) or not isinstance(concurrency, Integral) or concurrency < 1:
        raise RequestError(f"concurrency must be 1 or more, got {concurrency!r}")
