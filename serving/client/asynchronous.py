"""The client for asyncio."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Self, TypeVar

import numpy as np

from engines.photo import PasteMode
from engines.photo.images import Source
from serving.client.awaiting import AsyncGrpcStream, AsyncGrpcTransport, AsyncHttpTransport
from serving.client.blocking import GrpcTransport, HttpTransport
from serving.client.core import Core, as_handle
from serving.client.deadline import Backoff
from serving.client.effects import Compute, Describe, Effect, Flow, Infer, Pause, Register, Slot, Unregister
from serving.client.errors import FrameError, ServingError
from serving.client.frames import Frames
from serving.client.handle import Handle
from serving.client.sweeps import WINDOW, Sweep, merged, recovery
from serving.client.sync import Protocol, Transport, check_choice, finish
from serving.client.wire import DirectionInfo, Profile

AsyncTransport = AsyncGrpcTransport | AsyncHttpTransport
T = TypeVar("T")


class AsyncClient:
    """`Client` with coroutines, for one event loop; arguments, results and errors are the same.

    Photos are decoded, searched for faces and pasted back in threads. Cancelling a task cancels its request.
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
        self._slots = asyncio.Semaphore(concurrency)
        self._core = Core(url, self._slots, shared_memory=shared_memory, timeout=timeout, retries=retries)
        self._transport: AsyncTransport = AsyncGrpcTransport(url) if protocol == "grpc" else AsyncHttpTransport(url)
        self._concurrency = concurrency
        # At exit there is no loop any more.
        self._at_exit = weakref.finalize(
            self, _finish, self._core, GrpcTransport if protocol == "grpc" else HttpTransport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """See `Client.close`."""
        self._at_exit.detach()
        try:
            with suppress(ServingError):
                await self._run(self._core.close())
        finally:
            await self._transport.close()

    async def ready(self, *, timeout: float | None = None) -> bool:
        """See `Client.ready`."""
        if self._core.closed:
            return False
        with suppress(ServingError):
            return await self._transport.ready(self._core.deadline(timeout))
        return False

    async def profile(self, *, timeout: float | None = None) -> Profile:
        """See `Client.profile`."""
        return await self._run(self._core.profile(self._core.deadline(timeout), fresh=True))

    async def directions(self, *, timeout: float | None = None) -> dict[str, DirectionInfo]:
        """See `Client.directions`."""
        return dict((await self.profile(timeout=timeout)).directions)

    async def invert(
        self, photo: Source, *, aligned: bool = False, face: int | None = None, timeout: float | None = None
    ) -> Handle:
        """See `Client.invert`."""
        return await self._run(self._core.invert(photo, aligned, face, self._core.deadline(timeout)))

    async def edit(
        self,
        handle: Handle | str,
        edits: Mapping[str, float] | None = None,
        *,
        clamp: bool = False,
        timeout: float | None = None,
        **strengths: float,
    ) -> np.ndarray:
        """See `Client.edit`."""
        deadline = self._core.deadline(timeout)
        return await self._run(self._core.edit(handle, merged(edits, strengths), clamp, deadline))

    async def reconstruct(self, handle: Handle | str, *, timeout: float | None = None) -> np.ndarray:
        """See `Client.reconstruct`."""
        return await self._run(self._core.edit(handle, {}, False, self._core.deadline(timeout)))

    async def edit_photo(
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
        """See `Client.edit_photo`."""
        deadline = self._core.deadline(timeout)
        return await self._run(self._core.edit_photo(photo, edits, aligned, face, clamp, mode, deadline))

    def sweep(
        self,
        handle: Handle | str,
        direction: str,
        start: float,
        stop: float,
        steps: int,
        *,
        timeout: float | None = None,
    ) -> AsyncIterator[tuple[float, np.ndarray]]:
        """See `Client.sweep`: `async for strength, image in client.sweep(...)`."""
        sweep = Sweep(as_handle(handle), direction, start, stop, steps)
        self._core.deadline(timeout)
        window = min(self._concurrency, WINDOW)
        if isinstance(self._transport, AsyncGrpcTransport):
            return self._streamed(self._transport, sweep, window, timeout)
        return self._pipelined(sweep, window, timeout)

    async def _streamed(
        self, transport: AsyncGrpcTransport, sweep: Sweep, window: int, timeout: float | None
    ) -> AsyncIterator[tuple[float, np.ndarray]]:
        core = self._core
        profile = await self._run(core.profile(core.deadline(timeout)))
        sweep.warn(profile)
        frames = Frames(len(sweep), window)
        stream: AsyncGrpcStream | None = None
        backoff, deadline = Backoff(core.retries), core.deadline(timeout)
        try:
            while not frames.done:
                try:
                    if stream is None:
                        stream = transport.stream(sweep.handle.id)
                    while (asked := frames.ask()) is not None:
                        request = sweep.request(profile, asked)
                        lease = await self._run(core.lease(request, deadline, wait=frames.waiting == 1))
                        if lease is None:
                            frames.unask()
                            break
                        stream.send(request, lease)
                    image = (await stream.answer(deadline)).image
                except FrameError:
                    # By itself it is sent again with the photo if that is what is missing, and its error has a status.
                    request = sweep.request(profile, frames.next)
                    image = (await self._run(core.ask(request, sweep.handle.crop, deadline))).image
                except ServingError as error:
                    if stream is not None:
                        await stream.close()
                        stream = None
                    if pause := recovery(core, frames, backoff, deadline, error):
                        await asyncio.sleep(pause)
                    continue
                yield sweep.strengths[frames.take()], image
                backoff, deadline = Backoff(core.retries), core.deadline(timeout)
        finally:
            if stream is not None:
                await stream.close()

    async def _pipelined(
        self, sweep: Sweep, window: int, timeout: float | None
    ) -> AsyncIterator[tuple[float, np.ndarray]]:
        waiting: deque[tuple[float, asyncio.Task[Any]]] = deque()
        core = self._core
        profile = await self._run(core.profile(core.deadline(timeout)))
        sweep.warn(profile)
        frames = Frames(len(sweep), window)
        try:
            while not frames.done:
                while (asked := frames.ask()) is not None:
                    flow = core.ask(sweep.request(profile, asked), sweep.handle.crop, core.deadline(timeout))
                    waiting.append((sweep.strengths[asked], asyncio.create_task(self._run(flow))))
                strength, task = waiting[0]
                image = (await task).image
                waiting.popleft()
                frames.take()
                yield strength, image
        finally:
            for _, task in waiting:
                task.cancel()
            await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)

    async def _run(self, flow: Flow[T]) -> T:
        step: Any = flow.send
        value: Any = None
        while True:
            try:
                effect = step(value)
            except StopIteration as done:
                return done.value
            try:
                step, value = flow.send, await self._perform(effect)
            except BaseException as error:
                step, value = flow.throw, error

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Slot(deadline, wait):
                return await self._take_slot(deadline, wait)
            case Infer(request, region, deadline):
                return await self._transport.infer(request, region, deadline)
            case Pause(seconds):
                return await asyncio.sleep(seconds)
            case Compute(function):
                return await asyncio.to_thread(function)
            case Describe(deadline):
                return await self._transport.describe(deadline)
            case Register(region, deadline):
                return await self._transport.register(region, deadline)
            case Unregister(name, deadline):
                return await self._transport.unregister(name, deadline)

    async def _take_slot(self, deadline: Any, wait: bool) -> bool:
        if not wait and self._slots.locked():
            return False
        try:
            async with asyncio.timeout(deadline.left()):
                return await self._slots.acquire()
        except TimeoutError:
            raise deadline.error() from None


def _finish(core: Core, transport: type[Transport]) -> None:
    """Removes shared memory that nobody has closed, once the event loop is gone."""
    if core.shared_memory:
        finish(core, transport(core.url))
