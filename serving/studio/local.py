"""A bundle in the gateway's own process, in place of Triton: for one person on one machine."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

import numpy as np

from engines.directions import Direction, resolve
from engines.session import EditSession, Inversion
from serving.client.errors import NotFoundError
from serving.client.handle import Handle
from serving.client.wire import DirectionInfo, Profile
from serving.contract import CACHE_BYTES, HANDLE_DIGITS, RESEND
from serving.gateway.backend import About
from serving.gateway.limits import CpuPool
from serving.gateway.shelf import Shelf


@dataclass(eq=False)
class _Held:
    inversion: Inversion
    reconstruction: np.ndarray | None = None


class LocalBackend:
    """An edit session as the gateway's backend; edits that were not begun when their caller left never run.

    Inversions are held under handles that nobody can guess, whoever has the photo or not: they are digests with a
    secret of this process.

    Args:
        seconds: how long an inversion is held after its last use.
        memory: bytes that inversions may take; those longest unused leave first.
    """

    def __init__(
        self,
        session: EditSession,
        directions: Mapping[str, Direction],
        *,
        seconds: float,
        memory: int = CACHE_BYTES,
    ) -> None:
        self._session, self._directions = session, dict(directions)
        self._held = Shelf[_Held](memory, seconds)
        self._secret = secrets.token_bytes(32)
        # One at a time: the runtime spreads each over all cores.
        self._pool = CpuPool(1)
        self._stack = AsyncExitStack()
        manifest, self._digest = session.bundle.manifest, session.bundle.digest()
        self.about = About(
            manifest.name, session.family.name, manifest.precision, session.runtime, explains=session.explains
        )

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._held.tended())
        self._stack.callback(self._pool.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def profile(self) -> Profile:
        """The bundle's directions and the shape of its images."""
        known = {
            name: DirectionInfo(name, one.min_strength, one.max_strength, one.description)
            for name, one in self._directions.items()
        }
        return Profile(self._session.family.image_shape, known, self._digest)

    async def invert(self, photo: np.ndarray, *, aligned: bool = False) -> Handle:
        """Inverts a crop, uint8 h x w x 3, once: one that is held is not inverted again."""
        digest = hashlib.blake2b(photo.tobytes(), key=self._secret, digest_size=HANDLE_DIGITS // 2)
        handle = Handle(digest.hexdigest(), photo)
        if self._held.get(handle.id) is None:
            await self._pool.run(self._invert, handle.id, photo)
        return handle

    async def edit(self, handle: Handle, edits: Mapping[str, float]) -> np.ndarray:
        """Renders an edit; without any, the reconstruction, which is computed once."""

        def work(held: _Held) -> np.ndarray:
            if edits:
                return self._session.edit(held.inversion, *self._deltas(edits))[0]
            if (picture := held.reconstruction) is None:
                picture = held.reconstruction = self._session.reconstruct(held.inversion)[0]
            return picture

        return await self._run(handle, work)

    async def linear(self, handle: Handle, edits: Mapping[str, float]) -> np.ndarray:
        """Renders an edit by linear editing."""
        return await self._run(handle, lambda held: self._session.edit_linear(held.inversion, *self._deltas(edits))[0])

    async def map(self, handle: Handle, edits: Mapping[str, float]) -> np.ndarray:
        """Maps where an edit acts, float32 of the feature tensor's height and width."""
        return await self._run(handle, lambda held: self._session.edit_map(held.inversion, *self._deltas(edits))[0])

    def _deltas(self, edits: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        resolved = resolve(self._directions, edits, self._session.family)
        return resolved.delta_w, resolved.style_delta

    async def _run(self, handle: Handle, work: Callable[[_Held], np.ndarray]) -> np.ndarray:
        held = self._held.get(handle.id)
        if held is None:
            if handle.crop is None:
                raise NotFoundError(RESEND)
            held = await self._pool.run(self._invert, handle.id, handle.crop)
        return await self._pool.run(work, held)

    def _invert(self, key: str, crop: np.ndarray) -> _Held:
        held = _Held(self._session.invert(crop[None]))
        shapes = (held.inversion.shape(name) for name in held.inversion.names)
        self._held.put(key, held, 4 * sum(map(math.prod, shapes)) + crop.nbytes)
        return held
