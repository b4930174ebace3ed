"""The backend that the gateway needs, which Triton's client is one of; its model, remembered; and the canary."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from serving.client.errors import ServingError
from serving.client.handle import Handle
from serving.client.wire import Profile, within_ranges
from serving.gateway.problems import Problem

_PROFILE_SECONDS = 10.0
_ERROR_SECONDS = 1.0


class Backend(Protocol):
    """Inverts and edits; `serving.client.AsyncClient` is one. Its errors are those of `serving.client.errors`.

    Calls run side by side. One that is cancelled stops taking the server's time as soon as it can.
    """

    async def profile(self) -> Profile:
        """The server's model."""
        ...

    async def invert(self, photo: np.ndarray, *, aligned: bool = False) -> Handle:
        """Inverts a crop, uint8 h x w x 3 of the profile's shape, that is `aligned`."""
        ...

    async def edit(self, handle: Handle, edits: Mapping[str, float]) -> np.ndarray:
        """Renders an edit, uint8 h x w x 3; a handle with a crop is inverted again if the server has dropped it."""
        ...


@dataclass(frozen=True)
class About:
    """A model that runs in this process."""

    name: str
    """The bundle's."""
    family: str
    precision: str
    runtime: str
    explains: bool
    """Whether `linear` and `map` can be asked for."""


@runtime_checkable
class LocalModel(Backend, Protocol):
    """A backend whose model runs in this process, where the steps of an edit can be looked at."""

    @property
    def about(self) -> About:
        """The model that runs."""
        ...

    async def linear(self, handle: Handle, edits: Mapping[str, float]) -> np.ndarray:
        """Renders an edit by linear editing, uint8 h x w x 3."""
        ...

    async def map(self, handle: Handle, edits: Mapping[str, float]) -> np.ndarray:
        """Maps where an edit acts: float32 h x w, 0 and more, coarser than the image."""
        ...


class Model:
    """The backend's model, asked for again when the answer is older than ten seconds."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = asyncio.Lock()
        self._profile: Profile | None = None
        self._error: ServingError | None = None
        self._then = -float("inf")

    async def profile(self) -> Profile:
        """Shape and directions, or those that a server last had that is away; its ServingError if there are none."""
        if self._profile is not None and self._lock.locked():
            return self._profile
        async with self._lock:
            # Callers that waited for one answer share it, also if it is a failure: none of them asks anew in turn.
            if time.monotonic() - self._then > (_PROFILE_SECONDS if self._error is None else _ERROR_SECONDS):
                try:
                    self._profile, self._error = await self._backend.profile(), None
                except ServingError as error:
                    self._error = error
                self._then = time.monotonic()
        if self._profile is not None:
            return self._profile
        assert self._error is not None
        raise self._error

    async def strengths(self, edits: Mapping[str, float], clamp: bool) -> dict[str, float]:
        """The edits, limited to the directions' ranges if asked.

        Raises:
            Problem: 422 for a direction that the model does not have, with names that are close.
        """
        profile = await self.profile()
        for name in edits:
            if name not in profile.directions:
                close = difflib.get_close_matches(name.lower(), profile.directions, n=3)
                hint = f"did you mean {' or '.join(close)}?" if close else "GET /v1/directions lists all"
                detail = f"unknown direction {name!r}; {hint}"
                raise Problem(422, "unknown-direction", detail, suggestions=close)
        return within_ranges(profile, edits, clamp)


class EditCanary:
    """Whether an inference comes through within some `seconds`, as of at most `fresh` seconds ago; callers at the same
    time share one."""

    def __init__(self, backend: Backend, model: Model, seconds: float, fresh: float) -> None:
        self._backend, self._model = backend, model
        self._seconds, self._fresh = seconds, fresh
        self._lock = asyncio.Lock()
        self._then = -float("inf")
        self._healthy = False
        self._turn = 0

    async def is_healthy(self) -> bool:
        """Inverts a picture and renders it: its inversion is held, the rendering is done anew.

        The picture changes only after a failure: another one is routed to another Triton, and one that is ill must not
        make all gateways seem so.
        """
        async with self._lock:
            if time.monotonic() - self._then > self._fresh:
                try:
                    async with asyncio.timeout(self._seconds):
                        self._healthy = await self._infer()
                except (TimeoutError, ServingError):
                    self._healthy = False
                self._turn += not self._healthy
                self._then = time.monotonic()
            return self._healthy

    async def _infer(self) -> bool:
        height, width = (await self._model.profile()).shape
        rows, columns = np.linspace(0, 255, height)[:, None], np.linspace(0, 255, width)
        crop = np.stack(np.broadcast_arrays(rows, columns, (rows + columns) / 2), axis=2).astype(np.uint8)
        crop = np.roll(crop, self._turn % width, axis=1)
        image = await self._backend.edit(await self._backend.invert(crop, aligned=True), {})
        # A model that died may answer zeros.
        return image.shape == crop.shape and image.dtype == np.uint8 and bool(image.std() > 0)
