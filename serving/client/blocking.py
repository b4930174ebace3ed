"""The client for threads: `AsyncClient`, run in the loop of `serving.client.loop`."""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Self

import numpy as np

from engines.photo import PasteMode
from engines.photo.images import Source
from serving.client.asynchronous import AsyncClient
from serving.client.connection import Protocol
from serving.client.handle import Handle
from serving.client.loop import LoopThread
from serving.client.wire import DirectionInfo, Profile

_LOOP = LoopThread()
_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()
_PARENTS: list[object] = []
"""Objects of the parent that a forked process must not touch, not even as garbage."""


class Client:
    """Edits photos on a Triton server whose repository `edgedit serve repo` wrote; all methods are thread-safe.

    Photos are decoded and faces found here; only the aligned face, as small as the model takes it, is sent. A process
    that forks may go on with its clients on both sides, if no call or sweep over gRPC is under way.

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

    Example:
        >>> with edgedit.Client("127.0.0.1:8001") as client:
        ...     smiling = client.edit(client.invert("photo.jpg"), smile=2)
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
        self._make = partial(
            AsyncClient,
            url,
            protocol=protocol,
            shared_memory=shared_memory,
            timeout=timeout,
            retries=retries,
            concurrency=concurrency,
        )
        self._start()
        _CLIENTS.add(self)

    def _start(self) -> None:
        self._client = self._make()
        # For a client that nobody closes.
        self._at_exit = weakref.finalize(self, _close, self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections and removes all shared memory; calls under way fail."""
        self._at_exit.detach()
        _LOOP.run(self._client.close())

    def ready(self, *, timeout: float | None = None) -> bool:
        """Whether the server can be reached and says that it is ready."""
        return _LOOP.run(self._client.ready(timeout=timeout))

    def profile(self, *, timeout: float | None = None) -> Profile:
        """The server's model as it is now: its directions and the shape of its images.

        Raises:
            ServingError: one of its kinds.
        """
        return _LOOP.run(self._client.profile(timeout=timeout))

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
        return _LOOP.run(self._client.invert(photo, aligned=aligned, face=face, timeout=timeout))

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

        It has the photo's light and colours, which the handle knows: that of a dark photo is as dark, that of a
        black-and-white one has equal channels, that of a toned one its tint. What is bright behind a dark face comes
        back with `edit_photo`, which has the photo.

        Args:
            handle: from `invert`; the id of one works while the server still holds its inversion, and gives the model's
                own picture.
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
        return _LOOP.run(self._client.edit(handle, edits, clamp=clamp, timeout=timeout, **strengths))

    def reconstruct(self, handle: Handle | str, *, timeout: float | None = None) -> np.ndarray:
        """The inverted face without an edit, uint8 S x S x 3; errors as `edit`."""
        return _LOOP.run(self._client.reconstruct(handle, timeout=timeout))

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
        return _LOOP.run(
            self._client.edit_photo(photo, edits, aligned=aligned, face=face, clamp=clamp, mode=mode, timeout=timeout)
        )

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
        return _taken(self._client.sweep(handle, direction, start, stop, steps, timeout=timeout))


def _taken(frames: AsyncGenerator[tuple[float, np.ndarray]]) -> Iterator[tuple[float, np.ndarray]]:
    async def following() -> tuple[float, np.ndarray] | None:
        return await anext(frames, None)

    try:
        while (frame := _LOOP.run(following())) is not None:
            yield frame
    finally:
        _LOOP.end(_ended(frames))


async def _ended(frames: AsyncGenerator[tuple[float, np.ndarray]]) -> None:
    with suppress(RuntimeError):  # an interrupted step is ending it already
        await frames.aclose()


def _close(client: AsyncClient) -> None:
    _LOOP.end(client.close())


def _before_fork() -> None:
    """gRPC has a thread while it is connected, which a forked process would lack: idle clients connect anew."""
    _LOOP.end(_disconnect([client._client for client in _CLIENTS]))


async def _disconnect(clients: list[AsyncClient]) -> None:
    for client in clients:
        if not client.connection.under_way:
            await client.connection.disconnect()


def _after_fork() -> None:
    """A forked process has neither the thread of the loop nor a right to the parent's connections and memory."""
    global _LOOP
    connections = [client._client.connection for client in _CLIENTS]
    _PARENTS.append(_LOOP)
    _LOOP = LoopThread(any(one.protocol == "grpc" and one.under_way for one in connections))
    for client in _CLIENTS:
        if not client._client.closed:
            client._at_exit.detach()
            _PARENTS.append(client._client)
            client._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
