"""Lends a server shared memory, one region to each request under way, and takes all of it back in the end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from serving.client.connection import GRPC_OPTIONS, Connection, library
from serving.client.deadline import Deadline
from serving.client.errors import DeadlineError, NotFoundError, RequestError, ServingError, UnavailableError
from serving.client.regions import Region, RegionPool
from serving.client.translate import translate

_UNREGISTER_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Seconds before each attempt at unregistering memory that the server may still be using."""
_CLOSE_SECONDS = 2.0
"""What all of them may take, of a server that does not answer."""


class Lender:
    """The shared memory of one client, registered with its server through a connection."""

    def __init__(self, connection: Connection) -> None:
        self.pool = RegionPool()
        self._connection = connection
        self._process = os.getpid()

    @asynccontextmanager
    async def region(self, size: int, deadline: Deadline) -> AsyncIterator[Region]:
        """A region for one request with images of `size` bytes.

        Raises:
            RequestError: if the server does not take shared memory of this machine.
            ServingError: one of its other kinds.
        """
        region = self.pool.take(size) or await self._new(size, deadline)
        try:
            yield region
        except (RequestError, NotFoundError):
            self.pool.give_back(region)
            raise
        except BaseException:
            # The server may still be writing to it.
            self.pool.condemn(region)
            raise
        self.pool.give_back(region)

    async def close(self) -> None:
        """Unlinks all regions and has the server forget them; what it is still using is tried again."""
        self.pool.condemn_all()
        deadline = Deadline(_CLOSE_SECONDS)
        for pause in _UNREGISTER_PAUSES:
            if pause:
                await asyncio.sleep(pause)
            if not await self._unregister_condemned(deadline):
                return

    def finish(self) -> None:
        """As `close`, without an event loop: for a client that nobody has closed, at exit or as garbage."""
        if self._process != os.getpid():
            return
        self.pool.condemn_all()
        if not (names := self.pool.condemned()):
            return
        url, protocol = self._connection.url, self._connection.protocol
        client = library(f"tritonclient.{protocol}").InferenceServerClient
        seconds = _CLOSE_SECONDS
        if protocol == "grpc":
            triton, options = client(url, channel_args=GRPC_OPTIONS), {"client_timeout": seconds}
        else:
            triton, options = client(url, connection_timeout=seconds, network_timeout=seconds), {}
        with suppress(Exception):
            for pause in _UNREGISTER_PAUSES:
                time.sleep(pause)
                names = [name for name in names if not _unregistered(triton, url, name, options)]
                if not names:
                    break
            triton.close()

    async def _new(self, size: int, deadline: Deadline) -> Region:
        await self._unregister_condemned(deadline)
        region = Region(size)
        self.pool.add(region)
        try:
            await self._connection.register(region, deadline)
        except BaseException as error:
            self.pool.condemn(region)
            if isinstance(error, RequestError):
                raise RequestError(
                    f"{self._connection.url} does not take shared memory of this machine ({error}); pass "
                    "shared_memory=False, or start it with `edgedit serve up --shared-memory`"
                ) from error
            raise
        return region

    async def _unregister_condemned(self, deadline: Deadline) -> bool:
        """Has the server forget regions that are gone; whether some are left that it is still using."""
        names, kept = self.pool.condemned(), []
        try:
            while names:
                try:
                    await self._connection.unregister(names[-1], deadline)
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


def _unregistered(triton: Any, url: str, name: str, options: dict[str, float]) -> bool:
    """Whether the server has forgotten a region, which it does not while it is using it."""
    try:
        triton.unregister_system_shared_memory(name, **options)
    except Exception as error:
        if isinstance(failure := translate(error, url), UnavailableError | DeadlineError):
            raise failure from error
        return False
    return True
