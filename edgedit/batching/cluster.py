"""The same work on the machines of a Ray cluster: each worker is a process with the bundle, and answers with files.

Photos are read and results written by the process that began the batch, so that no folder need be shared and the journal
has one writer. Photos of a worker that is lost, with its machine or without, are done again by another one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

from edgedit.batching.journal import Failure
from edgedit.batching.worker import Outcome, Settings, Task, Worker, failed
from engines.cpus import usable
from engines.errors import EdgeditError, RuntimeUnavailableError
from engines.packages import Progress

LOCAL = "local"
AHEAD = 2
"""Batches that a worker has at a time: it decodes the photos of one while the networks run on the other."""
LOSSES = 3
"""Workers that a photo may cost: from then on it is taken for the reason."""


def outcomes(
    address: str, settings: Settings, tasks: Iterator[Task], batch: int, workers: int, say: Progress
) -> Iterator[Outcome]:
    """Works on photos, and says what became of each as soon as it is known.

    Args:
        address: of a Ray cluster, "auto" for the one of this machine, or "local" to begin one here for this batch.
        settings: what each worker is made of.
        tasks: taken one by one, as workers need them.
        batch: photos that the networks take at once, at most.
        workers: how many; 0 is as many as the cluster has processors for.
        say: told of workers that were lost.

    Raises:
        RuntimeUnavailableError: if Ray is not installed or cannot be reached, or no worker lives.
        EdgeditError: as `Worker`, for what is no photo's fault.
    """
    first = next(tasks, None)
    if first is None:
        return
    try:
        import ray
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"--ray needs {error.name}: pip install 'edgedit[ray]'") from error
    if workers < 0:
        raise EdgeditError(f"--workers must be 0 or more, got {workers}")
    own = not ray.is_initialized()
    if own:
        _begin(ray, address, workers)
    pool = None
    try:
        threads = int(settings.options.get("threads") or 1)
        gpus = 1 if settings.runtime.startswith("tensorrt") or settings.options.get("provider") == "cuda" else 0
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        pool = _Pool(ray, settings, count, {"num_cpus": threads, "num_gpus": gpus}, say)
        yield from pool.run(deque([first]), tasks, batch)
    finally:
        if pool is not None:
            pool.close()
        if own:
            ray.shutdown()


def _begin(ray: Any, address: str, workers: int) -> None:
    options: dict[str, Any] = {"address": address}
    if address == LOCAL:
        # On loopback, and without the dashboard, which would listen too.
        options |= {"num_cpus": max(workers, usable()), "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(**options, log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise RuntimeUnavailableError(f"no Ray cluster at {address}: {reason[:200]}; begin one with `ray start`") from error


class _Pool:
    """Workers, and the photos that each has."""

    def __init__(self, ray: Any, settings: Settings, count: int, needs: dict[str, float], say: Progress) -> None:
        self._ray, self._say = ray, say
        # Not restarted by Ray, which would give a photo that kills a worker to the next one for ever.
        self._kind = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=AHEAD, **needs)(Worker)
        self._settings = ray.put(settings)
        self._count = count
        self._actors: list[Any] = [self._new() for _ in range(count)]
        self._at_work: dict[Any, tuple[Any, list[Task]]] = {}
        """By what is awaited, its worker and photos."""
        self._losses: Counter[str] = Counter()
        self._alive = False

    def _new(self) -> Any:
        return self._kind.remote(self._settings)

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)

    def run(self, again: deque[Task], tasks: Iterator[Task], batch: int) -> Iterator[Outcome]:
        """Args:
        again: photos to begin with, and then those of workers that were lost.
        tasks: the others.
        batch: photos that a worker gets at once.
        """
        while True:
            for actor in self._idle():
                photos = _next(again, tasks, batch, self._losses)
                if photos:
                    self._at_work[actor.process.remote(photos)] = actor, photos
            if not self._at_work:
                return
            done, _ = self._ray.wait(list(self._at_work), num_returns=1)
            actor, photos = self._at_work.pop(done[0])
            try:
                outcomes = self._ray.get(done[0])
                self._alive = True
                yield from outcomes
            except self._ray.exceptions.RayActorError as error:
                yield from self._lost(actor, photos, again, error)
            except self._ray.exceptions.RayTaskError as error:
                # The error of the user's that the worker raised is its cause.
                raise error.cause if isinstance(error.cause, EdgeditError) else error from None

    def _idle(self) -> Iterator[Any]:
        """Each worker as often as it has room for a batch, those with the least first."""
        load = Counter(id(actor) for actor, _ in self._at_work.values())
        for ahead in range(AHEAD):
            yield from (actor for actor in self._actors if load[id(actor)] <= ahead)

    def _lost(self, actor: Any, photos: list[Task], again: deque[Task], error: Exception) -> Iterator[Outcome]:
        cause = getattr(error, "cause", None)
        if isinstance(cause, EdgeditError):
            raise cause from None
        if actor in self._actors:
            self._actors.remove(actor)
            if not self._alive and self._losses.total() >= LOSSES * self._count:
                raise RuntimeUnavailableError("no worker of Ray lives long enough to edit a photo; see its logs") from error
            self._actors.append(self._new())
            self._say(f"a worker was lost; its photos are done again ({photos[0].name}, ...)")
        self._losses.update(task.name for task in photos)
        for task in photos:
            if self._losses[task.name] < LOSSES:
                again.append(task)
            else:
                yield failed(task, Failure("worker lost", f"{task.name} was at work in {LOSSES} workers that died"))


def _next(again: deque[Task], tasks: Iterator[Task], batch: int, losses: Counter[str]) -> list[Task]:
    """Photos for a worker. One that was lost with a worker goes alone: it may be the reason."""
    if again and losses[again[0].name]:
        return [again.popleft()]
    photos: list[Task] = []
    while len(photos) < batch and (task := again.popleft() if again else next(tasks, None)) is not None:
        photos.append(task)
    return photos
