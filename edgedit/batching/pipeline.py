"""Photos through one worker in this process: threads decode and find faces, the networks take batches, threads write.

Memory is bounded: photos are read no sooner than they are needed, and together have at most `BUDGET` bytes, or are one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from edgedit.batching.journal import Failure
from edgedit.batching.worker import Outcome, Task, Worker, failed
from engines.photo import Cut
from engines.photo.images import claimed_pixels

BUDGET = 2**30
"""Bytes that photos on their way have together, as files and as pixels."""
PER_PIXEL = 6
"""Bytes of a pixel of a photo: once decoded, and once edited."""


def outcomes(
    worker: Worker, tasks: Iterator[Task], batch: int, threads: int, budget: int = BUDGET
) -> Iterator[Outcome]:
    """Works on photos, and says what became of each as soon as it is known.

    Args:
        worker: does the work.
        tasks: taken one by one, in the thread of the caller.
        batch: photos that the networks take at once, at most; fewer where no more can be held.
        threads: for decoding, finding faces, putting them back and encoding. The networks run in one thread more.
        budget: see `BUDGET`.

    Raises:
        EdgeditError: as `Worker`, for what is no photo's fault.
    """
    pool, networks = ThreadPoolExecutor(threads), ThreadPoolExecutor(1)
    try:
        yield from _Stages(worker, tasks, batch, threads, budget, pool, networks).run()
    finally:
        for one in (pool, networks):
            one.shutdown(cancel_futures=True)


class _Stages:
    """The photos that are on their way, by stage."""

    def __init__(
        self,
        worker: Worker,
        tasks: Iterator[Task],
        batch: int,
        threads: int,
        budget: int,
        pool: ThreadPoolExecutor,
        networks: ThreadPoolExecutor,
    ) -> None:
        self._worker, self._batch, self._threads, self._budget = worker, batch, threads, budget
        self._pool, self._networks = pool, networks
        self._tasks = iter(tasks)
        self._next: Task | None = None
        self._costs: dict[str, int] = {}
        """Bytes of the photos on their way."""
        self._preparing: dict[Future[Cut | Failure], Task] = {}
        self._ready: deque[tuple[Task, Cut]] = deque()
        self._editing: dict[Future[Any], list[tuple[Task, Cut]]] = {}
        self._finishing: set[Future[Outcome]] = set()

    def run(self) -> Iterator[Outcome]:
        self._next = next(self._tasks, None)
        while True:
            self._admit()
            self._start_batch()
            running = [*self._preparing, *self._editing, *self._finishing]
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                for outcome in self._advance(future):
                    del self._costs[outcome.task.name]
                    yield outcome

    def _admit(self) -> None:
        # As many as fill the next batch while the networks run on one, and keep the threads at work.
        most = 2 * self._batch + self._threads
        while self._next is not None and len(self._costs) < most and len(self._preparing) <= self._threads:
            task = self._next
            cost = len(task.data) + PER_PIXEL * claimed_pixels(task.data)
            if self._costs and sum(self._costs.values()) + cost > self._budget:
                return
            self._costs[task.name] = cost
            self._preparing[self._pool.submit(self._worker.prepare, task)] = task._replace(data=b"")
            self._next = next(self._tasks, None)

    def _start_batch(self) -> None:
        full = len(self._ready) >= self._batch
        if self._ready and not self._editing and (full or not self._preparing):
            photos = [self._ready.popleft() for _ in range(min(self._batch, len(self._ready)))]
            self._editing[self._networks.submit(self._worker.edit, photos)] = photos

    def _advance(self, future: Future[Any]) -> Iterator[Outcome]:
        if future in self._preparing:
            task, cut = self._preparing.pop(future), future.result()
            if isinstance(cut, Failure):
                yield failed(task, cut)
            else:
                self._ready.append((task, cut))
        elif future in self._editing:
            photos = self._editing.pop(future)
            for (task, cut), (faces, rendered) in zip(photos, future.result(), strict=True):
                self._finishing.add(self._pool.submit(self._worker.finish, task, cut, faces, rendered))
        else:
            self._finishing.remove(future)
            yield future.result()
