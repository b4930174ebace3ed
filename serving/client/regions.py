"""System shared memory that a client lends to a server on the same machine."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from serving.client.errors import CLOSED_MEANWHILE, ServingError, UnavailableError

PREFIX = "edgedit_"
"""The start of every region's name, under /dev/shm and at the server; the process id follows."""


class Region:
    """Memory for the image that goes with one request, and after it for the image that comes back.

    An image has `size` bytes, and the region twice that. Should this process be killed, the resource tracker that
    `multiprocessing` runs unlinks it.

    Raises:
        UnavailableError: if there is no room.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.name = f"{PREFIX}{os.getpid()}_{secrets.token_hex(8)}"
        try:
            self._memory = SharedMemory(self.name, create=True, size=2 * size)
            try:
                _reserve(self.name, 2 * size)
            except OSError:
                self.unlink()
                raise
        except OSError as error:
            raise UnavailableError(
                f"no shared memory is to be had ({error.strerror or error}); enlarge /dev/shm or do without it"
            ) from error

    def write(self, image: np.ndarray) -> None:
        """Puts an image at the start; errors as `read`."""
        self._view(image.size, 0).reshape(image.shape)[...] = image

    def read(self, size: int, offset: int) -> np.ndarray:
        """A copy of `size` bytes.

        Raises:
            ServingError: if the region has been unlinked, since the client was closed meanwhile.
        """
        return self._view(size, offset).copy()

    def _view(self, size: int, offset: int) -> np.ndarray:
        closed = ServingError(CLOSED_MEANWHILE)
        buffer = self._memory.buf
        if buffer is None:
            # np.ndarray would take it for no buffer and give arbitrary bytes.
            raise closed
        try:
            return np.frombuffer(buffer, np.uint8, size, offset)
        except ValueError as error:
            raise closed from error

    def unlink(self) -> None:
        """Removes the name; a server that has it mapped keeps its mapping until it is unregistered."""
        with suppress(FileNotFoundError):
            self._memory.unlink()
        with suppress(BufferError):
            self._memory.close()


def _reserve(name: str, size: int) -> None:
    """Takes the memory now: writing to memory that is not there would end the process with SIGBUS."""
    file = Path("/dev/shm", name)
    if not file.exists() or not hasattr(os, "posix_fallocate"):
        return
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
