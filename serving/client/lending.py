"""Lends a server shared memory, one region to each request under way, and takes all of it back in the end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from serving.client.connection import GRPC_OPTIONS, Connection, library
from serving.client.deadline import Deadline
from serving.client.errors import DeadlineError, NotFoundError, RequestError, ServingError, UnavailableError
from serving.client.regions import Region
from serving.client.translate import translate

_UNREGISTER_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4)
"""Seconds before each attempt at unregistering memory that the server may still be using."""
_CLOSE_SECONDS = 2.0
"""The time that all of them may take together, of a server that does not answer."""


class Lender:
    """The regions of one client, registered with its server through a connection.

    Only requests under way have one, so there are never more than the client's concurrency.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._process = os.getpid()
        self._all: dict[str, Region] = {}
        self._idle: list[Region] = []
        self._condemned: list[str] = []
        """Names of regions that are gone, of which the server has not been told."""

    @asynccontextmanager
    async def region(self, size: int, deadline: Deadline) -> AsyncIterator[Region]:
        """A region for one request with images of `size` bytes.

        Raises:
            RequestError: if the server does not take shared memory of this machine.
            ServingError: one of its other kinds.
        """
        while self._idle and self._idle[-1].size != size:
            self._condemn(self._idle.pop())
        region = self._idle.pop() if self._idle else await self._register(size, deadline)
        try:
            yield region
        except (RequestError, NotFoundError):
            self._give_back(region)
            raise
        except BaseException:
            # The server may still be writing to it.
            self._condemn(region)
            raise
        self._give_back(region)

    def condemn_idle(self) -> None:
        """Unlinks all idle regions, as after the server was restarted."""
        while self._idle:
            self._condemn(self._idle.pop())

    async def close(self) -> None:
        """Unlinks all regions and has the server forget them; what it is still using is tried again."""
        self._condemn_all()
        deadline = Deadline(_CLOSE_SECONDS)
        for pause in _UNREGISTER_PAUSES:
            if pause:
                await asyncio.sleep(pause)
            await self._unregister(deadline)
            if not self._condemned:
                return

    def finish(self) -> None:
        """Does what `close` does without an event loop: for a client that nobody has closed, at exit or as garbage."""
        if self._process != os.getpid():
            return
        self._condemn_all()
        if not self._condemned:
            return
        url, seconds = self.connection.url, _CLOSE_SECONDS
        client = library(f"tritonclient.{self.connection.protocol}").InferenceServerClient
        with suppress(Exception):
            if self.connection.protocol == "grpc":
                triton, options = client(url, channel_args=GRPC_OPTIONS), {"client_timeout": seconds}
            else:
                triton, options = client(url, connection_timeout=seconds, network_timeout=seconds), {}
            for pause in _UNREGISTER_PAUSES:
                time.sleep(pause)
                for name in tuple(self._condemned):
                    try:
                        triton.unregister_system_shared_memory(name, **options)
                    except Exception as error:
                        if isinstance(translate(error, url), UnavailableError | DeadlineError):
                            raise
                    else:
                        self._condemned.remove(name)
            triton.close()
        self._condemned.clear()

    async def _register(self, size: int, deadline: Deadline) -> Region:
        await self._unregister(deadline)
        region = Region(size)
        self._all[region.name] = region
        try:
            await self.connection.register(region, deadline)
        except BaseException as error:
            self._condemn(region)
            if isinstance(error, RequestError):
                raise RequestError(
                    f"{self.connection.url} does not take shared memory of this machine ({error}); pass "
                    "shared_memory=False, or start it with `edgedit serve up --shared-memory`"
                ) from error
            raise
        return region

    async def _unregister(self, deadline: Deadline) -> None:
        """Has the server forget regions that are gone, but for those that it is still using."""
        names, self._condemned = self._condemned, []
        while names:
            try:
                await self.connection.unregister(names[-1], deadline)
            except UnavailableError:
                # The server is gone, and its registrations with it.
                return
            except ServingError:
                self._condemned.append(names[-1])
            except BaseException:
                self._condemned += names
                raise
            names.pop()

    def _give_back(self, region: Region) -> None:
        if region.name in self._all:
            self._idle.append(region)

    def _condemn(self, region: Region) -> None:
        if self._all.pop(region.name, None) is not None:
            region.unlink()
            self._condemned.append(region.name)

    def _condemn_all(self) -> None:
        self._idle.clear()
        for region in tuple(self._all.values()):
            self._condemn(region)
