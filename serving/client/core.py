"""What both clients do, without any I/O: every call is a generator that says what is to be done next.

A client runs one by doing what it yields, see `serving.client.effects`. So retries, deadlines, shared memory and the
resend of photos stand here once, for threads and for asyncio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Protocol, TypeVar

import numpy as np

from engines.photo import Cropper, Cut, PasteMode, open_image, photo_name
from engines.photo.images import Source
from serving.client.deadline import Backoff, Deadline
from serving.client.effects import Compute, Describe, Flow, Infer, Pause, Register, Slot, Unregister
from serving.client.errors import (
    RETRIED,
    DroppedError,
    NotFoundError,
    RequestError,
    ServingError,
    StaleRegionError,
    UnavailableError,
)
from serving.client.handle import Handle
from serving.client.ports import http_instead, speaks_http
from serving.client.regions import Region, RegionPool
from serving.client.wire import Answer, Profile, Request, edits_json, parse_profile, within_ranges
from serving.contract import EDIT_SESSION

MODEL = "the model"
_UNREGISTER_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Seconds before each attempt at unregistering memory that the server may still be using."""
_CLOSE_SECONDS = 2.0
"""What all of them may take, of a server that does not answer."""

T = TypeVar("T")


class Slots(Protocol):
    """A semaphore."""

    def release(self) -> None: ...


class Lease:
    """A slot and, with shared memory, a region, for one request under way. Ends once, whatever happens first."""

    def __init__(self, slots: Slots, pool: RegionPool, region: Region | None) -> None:
        self._slots, self._pool, self.region = slots, pool, region
        self._ended = False

    def end(self, error: BaseException | None = None) -> None:
        """Gives the slot back, and the region unless the server may still be writing to it."""
        if self._ended:
            return
        self._ended = True
        if self.region is not None:
            if error is None or isinstance(error, RequestError | NotFoundError):
                self._pool.give_back(self.region)
            else:
                self._pool.condemn(self.region)
        self._slots.release()


class Core:
    """State and calls of one client.

    Args:
        url: host:port of the server.
        slots: the client's semaphore.
        shared_memory: whether images go through system shared memory.
        timeout: seconds for a call that is given no time of its own.
        retries: how often a call is made again.

    Raises:
        RequestError: for a URL, time or number that cannot be.
    """

    def __init__(self, url: str, slots: Slots, *, shared_memory: bool, timeout: float, retries: int) -> None:
        if not isinstance(url, str) or not url.rpartition(":")[2].isdigit() or "/" in url:
            raise RequestError(f"{url!r} is not a server's host:port, such as 127.0.0.1:8001")
        if isinstance(retries, bool) or not isinstance(retries, Integral) or retries < 0:
            raise RequestError(f"retries must be 0 or more, got {retries!r}")
        self.url = url
        self.slots = slots
        self.shared_memory = shared_memory
        self.retries = retries
        self.closed = False
        self.pool = RegionPool()
        self._timeout = timeout
        self._cropper = Cropper()
        self._profile: Profile | None = None
        self.deadline()

    def deadline(self, timeout: float | None = None) -> Deadline:
        """The end of a call that starts now.

        Raises:
            RequestError: for a time that is not above zero.
        """
        seconds = self._timeout if timeout is None else timeout
        if isinstance(seconds, bool) or not isinstance(seconds, Real) or not 0 < seconds < 1e6:
            raise RequestError(f"timeout must be seconds above 0, got {seconds!r}")
        return Deadline(float(seconds))

    def profile(self, deadline: Deadline, *, fresh: bool = False) -> Flow[Profile]:
        """What the server says of its model; asked for once, and again after it was away or if it is to be `fresh`."""
        # Another thread may forget it at any time.
        profile = self._profile
        if profile is None or fresh:

            def describe() -> Flow[Profile]:
                try:
                    return parse_profile((yield Describe(deadline)))
                except (NotFoundError, RequestError) as error:
                    raise self.unserved(error) from error

            profile = self._profile = yield from self._repeated(describe, deadline)
        return profile

    def invert(self, photo: Source, aligned: bool, face: int | None, deadline: Deadline) -> Flow[Handle]:
        """See `Client.invert`."""
        profile = yield from self.profile(deadline)
        cut, crop, home = yield Compute(lambda: self._open(photo, profile, aligned, face))
        answer = yield from self.ask(Request(profile.shape, image=crop, image_handle=home), None, deadline)
        return Handle(answer.handle, crop, cut.alignment)

    def edit(
        self, handle: Handle | str, edits: Mapping[str, float], clamp: bool, deadline: Deadline
    ) -> Flow[np.ndarray]:
        """See `Client.edit`."""
        handle = as_handle(handle)
        edits_json(edits)
        profile = yield from self.profile(deadline)
        text = edits_json(within_ranges(profile, edits, clamp))
        request = Request(profile.shape, handle=handle.id, edits=text)
        return (yield from self.ask(request, handle.crop, deadline)).image

    def edit_photo(
        self,
        photo: Source,
        edits: Mapping[str, float],
        aligned: bool,
        face: int | None,
        clamp: bool,
        mode: PasteMode,
        deadline: Deadline,
    ) -> Flow[np.ndarray]:
        """See `Client.edit_photo`."""
        edits_json(edits)
        profile = yield from self.profile(deadline)
        text = edits_json(within_ranges(profile, edits, clamp))
        cut, crop, home = yield Compute(lambda: self._open(photo, profile, aligned, face))
        first = Request(profile.shape, image=crop, edits=text if cut.alignment is None else "{}", image_handle=home)
        edited = base = yield from self.ask(first, None, deadline)
        if cut.alignment is not None:
            edited = yield from self.ask(Request(profile.shape, handle=base.handle, edits=text), crop, deadline)
        return (yield Compute(lambda: cut.put_back(edited.image, base.image, mode)))

    def ask(self, request: Request, crop: np.ndarray | None, deadline: Deadline) -> Flow[Answer]:
        """Makes a request, again where that may help, and with the crop where the server has dropped the inversion."""

        def attempt() -> Flow[Answer]:
            try:
                return (yield from self._exchange(request, deadline))
            except NotFoundError as error:
                again = request.with_image(self.resend(request, crop, error))
            try:
                return (yield from self._exchange(again, deadline))
            except NotFoundError as error:
                raise self.unserved(error) from error

        return (yield from self._repeated(attempt, deadline))

    def resend(self, request: Request, crop: np.ndarray | None, error: NotFoundError) -> np.ndarray:
        """The crop to send after a NOT_FOUND.

        Raises:
            NotFoundError: if there is none.
            ServingError: if it was sent already, so that it is the model that was not found.
        """
        if request.image is not None:
            raise self.unserved(error) from error
        if crop is None:
            raise NotFoundError(f"the server no longer holds inversion {request.handle}; invert the photo again")
        return crop

    def unserved(self, error: ServingError) -> ServingError:
        """What is said of a server without the model."""
        return ServingError(f"{self.url} does not serve {EDIT_SESSION}: {error}")

    def lease(self, request: Request, deadline: Deadline, *, wait: bool = True) -> Flow[Lease | None]:
        """A slot and a region for a request; None without `wait` if no slot is free."""
        self._check_open()
        if not (yield Slot(deadline, wait)):
            return None
        try:
            self._check_open()
            region = None
            if self.shared_memory:
                region = yield from self._region(request.image_bytes, deadline)
        except BaseException:
            self.slots.release()
            raise
        return Lease(self.slots, self.pool, region)

    def close(self) -> Flow[None]:
        """Unlinks all shared memory and has the server forget it; what it is still using is tried again."""
        self.closed = True
        self.pool.condemn_all()
        deadline = Deadline(_CLOSE_SECONDS)
        for pause in _UNREGISTER_PAUSES:
            if pause:
                yield Pause(pause)
            if not (yield from self._unregister_condemned(deadline)):
                return

    def note_away(self) -> None:
        """The server was away: it may come back as another, and has forgotten what was registered with it."""
        self._profile = None
        self.pool.condemn_idle()

    def _exchange(self, request: Request, deadline: Deadline) -> Flow[Answer]:
        for last in (False, True):
            lease = yield from self.lease(request, deadline)
            assert lease is not None
            try:
                answer = yield Infer(request, lease.region, deadline)
            except BaseException as error:
                lease.end(error)
                if last or not isinstance(error, StaleRegionError):
                    raise
                self.note_away()
            else:
                lease.end()
                return answer
        raise AssertionError

    def _repeated(self, attempt: Callable[[], Flow[T]], deadline: Deadline) -> Flow[T]:
        backoff = Backoff(self.retries)
        self._check_open()
        while True:
            try:
                return (yield from attempt())
            except RETRIED as error:
                if isinstance(error, UnavailableError):
                    self.note_away()
                delay = backoff.delay(deadline)
                if delay is None or self.closed:
                    if isinstance(error, DroppedError) and (yield Compute(lambda: speaks_http(self.url))):
                        raise http_instead(self.url) from error
                    raise
            yield Pause(delay)

    def _region(self, size: int, deadline: Deadline) -> Flow[Region]:
        if (region := self.pool.take(size)) is not None:
            return region
        yield from self._unregister_condemned(deadline)
        region = Region(size)
        self.pool.add(region)
        try:
            yield Register(region, deadline)
        except BaseException as error:
            self.pool.condemn(region)
            if isinstance(error, RequestError):
                raise RequestError(
                    f"{self.url} does not take shared memory of this machine ({error}); pass shared_memory=False, or "
                    "start it with `edgedit serve up --shared-memory`"
                ) from error
            raise
        return region

    def _unregister_condemned(self, deadline: Deadline) -> Flow[bool]:
        """Has the server forget regions; whether some remain."""
        names = self.pool.condemned()
        kept = []
        try:
            while names:
                try:
                    yield Unregister(names[-1], deadline)
                except UnavailableError:
                    # The server is gone, and its registrations with it.
                    names.clear()
                    break
                except ServingError:
                    kept.append(names[-1])
                names.pop()
        finally:
            self.pool.still_condemned([*names, *kept])
        return bool(kept)

    def _open(self, photo: Source, profile: Profile, aligned: bool, face: int | None) -> tuple[Cut, np.ndarray, str]:
        """What was cut out of the photo, what the model takes of it, and what the server will call its inversion."""
        opened, name = open_image(photo), photo_name(photo)
        cut = self._cropper(opened, profile.shape, aligned=aligned, face=face, name=name, model=MODEL)
        crop = np.ascontiguousarray(cut.crop)
        return cut, crop, profile.handle(crop)

    def _check_open(self) -> None:
        if self.closed:
            raise ServingError("this client is closed; make another one")


def as_handle(handle: Handle | str) -> Handle:
    """A handle, or one made of an id.

    Raises:
        RequestError: for anything else.
    """
    if isinstance(handle, Handle):
        return handle
    if isinstance(handle, str) and handle:
        return Handle(handle)
    raise RequestError(f"a handle is what `invert` gives, or its id; got {type(handle).__name__}")
