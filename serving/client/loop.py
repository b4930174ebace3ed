"""One event loop, in a thread, for all blocking clients of this process.

asyncio's own, since anyio's portal does not end a call whose caller is interrupted, and knows nothing of forks.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from serving.client.errors import ServingError

END_SECONDS = 5.0
"""The longest wait for a coroutine that cleans up."""

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads; the thread is started when the first one comes, and ends with the process.

    Args:
        lost: whether this process was forked from one that was using gRPC, of which it cannot even start a thread.
    """

    def __init__(self, lost: bool = False) -> None:
        self._lost = lost
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """The result of a coroutine, or its error; it is cancelled if the caller is interrupted while it waits.

        Raises:
            ServingError: in a process that is lost.
            TimeoutError: if it takes longer than it may.
        """
        if self._lost:
            coroutine.close()
            raise ServingError(
                "this process was forked while a call or a sweep was under way over gRPC, which does not survive that; "
                "fork before or after it, or use protocol='http'"
            )
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())
        try:
            return future.result(seconds)
        except BaseException:
            future.cancel()
            raise

    def end(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine that cleans up, if any ran before. Nobody waits long for it, nor on the loop's own thread,
        which collects garbage too; and once the interpreter ends, nothing runs any more."""
        if self._loop is None or sys.is_finalizing():
            coroutine.close()
        elif threading.current_thread() is self._thread:
            asyncio.run_coroutine_threadsafe(coroutine, self._running())
        else:
            with suppress(TimeoutError):
                self.run(coroutine, END_SECONDS)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="edgedit-client", daemon=True)
                self._thread.start()
            return self._loop
