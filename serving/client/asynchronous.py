"""The client for asyncio, which is all of the client: `Client` runs this one in a thread."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from numbers import Integral
from typing import Self, TypeVar

import numpy as np

from engines.photo import Cropper, Cut, PasteMode, open_image, photo_name
from engines.photo.images import Source
from serving.client.connection import Connection, Protocol
from serving.client.deadline import LONGEST, Deadline, pauses
from serving.client.errors import (
    CLOSED,
    RETRIED,
    DroppedError,
    NotFoundError,
    RequestError,
    ServingError,
    StaleRegionError,
    UnavailableError,
)
from serving.client.handle import Handle, as_handle
from serving.client.lending import Lender
from serving.client.regions import Region
from serving.client.translate import http_instead, speaks_http
from serving.client.wire import (
    Answer,
    DirectionInfo,
    Profile,
    Request,
    edits_json,
    merged,
    parse_profile,
    strengths_between,
    within_ranges,
)
from serving.contract import EDIT_SESSION, MAX_BATCH

T = TypeVar("T")

WINDOW = MAX_BATCH
"""Frames of one sweep that may be under way, or waiting to be taken, at most."""


class AsyncClient:
    """`Client` with coroutines, for one event loop; arguments, results and errors are the same.

    Photos are decoded, searched for faces and pasted back in threads. Cancelling a task cancels its request.

    Example:
        >>> async def smiling():
        ...     async with edgedit.AsyncClient("127.0.0.1:8001") as client:
        ...         return await client.edit(await client.invert("photo.jpg"), smile=2)
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
        if isinstance(concurrency, bool) or not isinstance(concurrency, Integral) or concurrency < 1:
            raise RequestError(f"concurrency must be 1 or more, got {concurrency!r}")
        if isinstance(retries, bool) or not isinstance(retries, Integral) or retries < 0:
            raise RequestError(f"retries must be 0 or more, got {retries!r}")
        Deadline(timeout)
        self.closed = False
        self._timeout, self._retries, self._concurrency = timeout, retries, concurrency
        self.connection = Connection(url, protocol)
        self._lender = Lender(self.connection) if shared_memory else None
        self._slots = asyncio.Semaphore(concurrency)
        self._cropper = Cropper()
        self._profile: Profile | None = None
        if self._lender is not None:
            # What nobody has closed may have no event loop any more when it goes.
            weakref.finalize(self, self._lender.finish)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """See `Client.close`."""
        self.closed = True
        try:
            if self._lender is not None:
                await self._lender.close()
        finally:
            await self.connection.close()

    async def ready(self, *, timeout: float | None = None) -> bool:
        """See `Client.ready`."""
        if self.closed:
            return False
        with suppress(ServingError):
            return await self.connection.ready(self._deadline(timeout))
        return False

    async def profile(self, *, timeout: float | None = None) -> Profile:
        """See `Client.profile`."""
        return await self._ask_profile(self._deadline(timeout))

    async def directions(self, *, timeout: float | None = None) -> dict[str, DirectionInfo]:
        """See `Client.directions`."""
        return dict((await self.profile(timeout=timeout)).directions)

    async def invert(
        self, photo: Source, *, aligned: bool = False, face: int | None = None, timeout: float | None = None
    ) -> Handle:
        """See `Client.invert`."""
        deadline = self._deadline(timeout)
        profile = await self._known_profile(deadline)
        cut, crop = await asyncio.to_thread(self._open, photo, profile, aligned, face)
        request = Request(profile.shape, image=crop, image_handle=profile.handle(crop))
        answer = await self._ask(request, None, deadline)
        return Handle(answer.handle, crop, cut.alignment, cut.tone)

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
        deadline = self._deadline(timeout)
        handle, edits = as_handle(handle), merged(edits, strengths)
        edits_json(edits)
        profile = await self._known_profile(deadline)
        text = edits_json(within_ranges(profile, edits, clamp))
        answer = await self._ask(Request(profile.shape, handle=handle.id, edits=text), handle.crop, deadline)
        return await _shown(handle, answer)

    async def reconstruct(self, handle: Handle | str, *, timeout: float | None = None) -> np.ndarray:
        """See `Client.reconstruct`."""
        return await self.edit(handle, timeout=timeout)

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
        deadline = self._deadline(timeout)
        edits_json(edits)
        profile = await self._known_profile(deadline)
        text = edits_json(within_ranges(profile, edits, clamp))
        cut, crop = await asyncio.to_thread(self._open, photo, profile, aligned, face)
        first = text if cut.alignment is None else "{}"
        request = Request(profile.shape, image=crop, edits=first, image_handle=profile.handle(crop))
        edited = base = await self._ask(request, None, deadline)
        if cut.alignment is not None:
            edited = await self._ask(Request(profile.shape, handle=base.handle, edits=text), crop, deadline)
        return await asyncio.to_thread(cut.put_back, edited.image, base.image, mode)

    def sweep(
        self,
        handle: Handle | str,
        direction: str,
        start: float,
        stop: float,
        steps: int,
        *,
        timeout: float | None = None,
    ) -> AsyncGenerator[tuple[float, np.ndarray]]:
        """See `Client.sweep`: `async for strength, image in client.sweep(...)`."""
        self._deadline(timeout)
        return self._frames(as_handle(handle), direction, strengths_between(direction, start, stop, steps), timeout)

    async def _frames(
        self, handle: Handle, direction: str, strengths: list[float], timeout: float | None
    ) -> AsyncGenerator[tuple[float, np.ndarray]]:
        profile = await self._known_profile(self._deadline(timeout))
        for end in {strengths[0], strengths[-1]}:
            within_ranges(profile, {direction: end}, clamp=False)
        frames = [Request(profile.shape, handle=handle.id, edits=edits_json({direction: s})) for s in strengths]
        ahead: dict[int, asyncio.Task[Answer]] = {}
        window = 1
        # All of it counts as under way, also while its reader has a frame: a process that forks then is told so.
        with self.connection.calling():
            try:
                for index, frame in enumerate(frames):
                    for later in range(index, min(index + window, len(frames))):
                        if later not in ahead:
                            ahead[later] = asyncio.create_task(self._ask_ahead(frames[later]))
                    answer = await self._ask(frame, handle.crop, self._deadline(timeout), ahead[index])
                    if _failed(ahead.pop(index)):
                        # So did others with it: now that the server has the photo, they are asked for anew.
                        ahead = {later: task for later, task in ahead.items() if not _failed(task)}
                    yield strengths[index], await _shown(handle, answer)
                    # The first is asked for alone: should the photo have to be sent, it is sent with that one.
                    window = min(self._concurrency, WINDOW)
            finally:
                for task in ahead.values():
                    task.cancel()
                await asyncio.gather(*ahead.values(), return_exceptions=True)

    async def _ask_ahead(self, request: Request) -> Answer:
        """The first attempt at a frame, whose time begins when it is waited for, in `_ask`."""
        deadline = Deadline(LONGEST)
        async with self._leased(request, deadline) as region:
            return await self.connection.infer(request, region, deadline)

    async def _ask(
        self,
        request: Request,
        crop: np.ndarray | None,
        deadline: Deadline,
        ahead: asyncio.Task[Answer] | None = None,
    ) -> Answer:
        """Makes a request, again where that may help, and with the crop where the server has dropped the inversion and
        the crop is known. `ahead` is the first attempt, if it is under way already."""

        async def attempt() -> Answer:
            nonlocal ahead
            sent, stale = request, False
            while True:
                try:
                    if ahead is not None:
                        first, ahead = ahead, None
                        async with deadline.limit():
                            return await first
                    async with self._leased(sent, deadline) as region:
                        return await self.connection.infer(sent, region, deadline)
                except StaleRegionError:
                    if stale:
                        raise
                    stale = True
                    self._note_away()
                except NotFoundError as error:
                    if sent.image is not None:
                        raise self._unserved(error) from error
                    if crop is None:
                        lost = f"the server no longer holds inversion {request.handle}; invert the photo again"
                        raise NotFoundError(lost) from error
                    sent = replace(sent, image=crop)

        return await self._retried(attempt, deadline)

    async def _retried(self, attempt: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        """Makes attempts until one is answered. gRPC's own retries end after five, know no HTTP, and would not hear
        that a server was away."""
        delays = pauses(self._retries, deadline)
        self._check_open()
        while True:
            try:
                return await attempt()
            except RETRIED as error:
                if isinstance(error, UnavailableError):
                    self._note_away()
                delay = next(delays, None)
                if delay is None or self.closed:
                    url = self.connection.url
                    if isinstance(error, DroppedError) and await asyncio.to_thread(speaks_http, url):
                        raise http_instead(url) from error
                    raise
            await asyncio.sleep(delay)

    @asynccontextmanager
    async def _leased(self, request: Request, deadline: Deadline) -> AsyncIterator[Region | None]:
        """One of the client's slots and, if images go through shared memory, a region; for one request."""
        self._check_open()
        async with deadline.limit():
            await self._slots.acquire()
        try:
            self._check_open()
            if self._lender is None:
                yield None
            else:
                async with self._lender.region(request.image_bytes, deadline) as region:
                    yield region
        finally:
            self._slots.release()

    async def _known_profile(self, deadline: Deadline) -> Profile:
        """The profile that the server gave first, or first after it was away."""
        return self._profile or await self._ask_profile(deadline)

    async def _ask_profile(self, deadline: Deadline) -> Profile:
        async def attempt() -> Profile:
            try:
                return parse_profile(await self.connection.describe(deadline))
            except (NotFoundError, RequestError) as error:
                raise self._unserved(error) from error

        profile = self._profile = await self._retried(attempt, deadline)
        return profile

    def _note_away(self) -> None:
        """The server was away: it may come back as another, and has forgotten what was registered with it."""
        self._profile = None
        if self._lender is not None:
            self._lender.condemn_idle()

    def _unserved(self, error: ServingError) -> ServingError:
        """The error of a server without the model."""
        return ServingError(f"{self.connection.url} does not serve {EDIT_SESSION}: {error}")

    def _open(self, photo: Source, profile: Profile, aligned: bool, face: int | None) -> tuple[Cut, np.ndarray]:
        """The cut of a photo, and the pixels of it that the model takes."""
        opened, name = open_image(photo), photo_name(photo)
        cut = self._cropper(opened, profile.shape, aligned=aligned, face=face, name=name)
        return cut, np.ascontiguousarray(cut.crop)

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)

    def _check_open(self) -> None:
        if self.closed:
            raise ServingError(CLOSED)


async def _shown(handle: Handle, answer: Answer) -> np.ndarray:
    """The answer's image in the light and colours of the handle's photo."""
    if handle.tone.plain:
        return answer.image
    return await asyncio.to_thread(handle.tone.shown, answer.image)


def _failed(task: asyncio.Task[Answer]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
