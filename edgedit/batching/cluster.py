"""The same work on the machines of a Ray cluster: each worker is a process with the bundle, and answers with files.

Photos are read and results written by the process that began the batch: no folder need be shared, and the journal has
one writer. Photos of a worker that is lost, with its machine or without, are done again by another one.
"""

from __future__ import annotations

import os
import socket
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from edgedit.batching.journal import Failure
from edgedit.batching.worker import Outcome, Settings, Task, Worker, failed
from engines.cpus import usable
from engines.errors import EdgeditError, EngineError, RuntimeUnavailableError
from engines.packages import Progress

LOCAL = "local"
AHEAD = 2
"""Batches that a worker has at a time: it decodes the photos of one while the networks run on the other."""
PATIENCE = 10.0
"""Seconds for a connection to a cluster."""
LOSSES = 3
"""Workers that a photo may cost: from then on it is taken for the reason."""


def outcomes(
    address: str, settings: Settings, tasks: Iterator[Task], batch: int, workers: int, say: Progress
) -> Generator[Outcome]:
    """Works on photos, and says what became of each as soon as it is known.

    Args:
        address: of a Ray cluster, "auto" for the one of this machine, or "local" to begin one here for this batch. If
            this process has called `ray.init` already, that cluster is taken.
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
        raise EngineError(f"--workers must be 0 or more, got {workers}")
    needs = {"CPU": int(settings.options.get("threads") or 1)}
    if settings.runtime.startswith("tensorrt") or settings.options.get("provider") == "cuda":
        needs["GPU"] = 1
    if settings.runtime == "onnxruntime":
        # Each would take all processors of its machine otherwise.
        settings = replace(settings, options={"threads": needs["CPU"], **settings.options})
    with _cluster(ray, address, max(workers * needs["CPU"], usable())):
        count = _room(ray.cluster_resources(), needs, workers)
        pool = _Pool(ray, settings, count, {f"num_{kind.lower()}s": number for kind, number in needs.items()}, say)
        try:
            yield from pool.run(chain((first,), tasks), batch)
        finally:
            pool.close()


def _room(resources: Mapping[str, float], needs: Mapping[str, int], workers: int) -> int:
    """The number of workers: those asked for, or as many as there is room for.

    Raises:
        EngineError: if there is not that much room: Ray would wait for more machines for ever.
    """
    room = min(int(resources.get(kind, 0)) // number for kind, number in needs.items())
    if room < max(workers, 1):
        each = " and ".join(f"{number} {kind}" for kind, number in needs.items())
        raise EngineError(
            f"the Ray cluster has room for {room} workers of {each} each; name fewer --workers or --threads"
        )
    return workers or room


@contextmanager
def _cluster(ray: Any, address: str, processors: int) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "error"}
    if address == LOCAL:
        # Some ports of Ray are open to the network whatever it is given; from 2.59 on each asks for this user's token.
        options |= {"num_cpus": processors, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _reach(address)
        ray.init(**options)
    except Exception as error:  # Ray raises many kinds, plain ones among them.
        ray.shutdown()
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "try again on a machine that is less busy" if address == LOCAL else "begin one with `ray start`"
        raise RuntimeUnavailableError(f"no Ray cluster at {address}: {reason}; {remedy}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """
    Raises:
        OSError, ValueError: if nothing listens at HOST:PORT, or it is none; Ray itself would try for many minutes.
    """
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=PATIENCE).close()


class RemoteWorker:
    """A worker that loads the bundle when it gets its first photos, so that what is wrong with it is their answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._worker: Worker | None = None

    def process(self, tasks: list[Task]) -> list[Outcome]:
        """The outcomes of a batch, as `Worker.process` gives them."""
        with self._lock:
            self._worker = self._worker or Worker(self._settings)
        return self._worker.process(tasks)


class _Pool:
    """Workers, and the photos that each has."""

    def __init__(self, ray: Any, settings: Settings, count: int, needs: Mapping[str, int], say: Progress) -> None:
        self._ray, self._say = ray, say
        # Not restarted by Ray, which would give a photo that kills a worker to the next one for ever.
        self._kind = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=AHEAD, **needs)(RemoteWorker)
        self._settings = ray.put(settings)
        self._actors: list[Any] = [self._new() for _ in range(count)]
        self._at_work: dict[Any, tuple[Any, list[Task]]] = {}
        """The worker and photos of what is awaited."""
        self._again: deque[Task] = deque()
        """Photos of workers that were lost."""
        self._losses: Counter[str] = Counter()
        """Workers lost, by photo."""
        self._deaths = 0
        """Workers lost before one had answered."""
        self._alive = False

    def _new(self) -> Any:
        return self._kind.remote(self._settings)

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)

    def run(self, tasks: Iterator[Task], batch: int) -> Iterator[Outcome]:
        """Args:
        tasks: the photos.
        batch: how many a worker gets at once.
        """
        while True:
            # In rounds, so that all have something before one has more.
            while any([self._give(actor, tasks, batch) for actor in self._actors]):
                pass
            if not self._at_work:
                return
            done = self._ray.wait(list(self._at_work), num_returns=1)[0][0]
            actor, photos = self._at_work.pop(done)
            try:
                outcomes = self._ray.get(done)
            except self._ray.exceptions.RayActorError as error:
                yield from self._lost(actor, photos, error)
            except self._ray.exceptions.RayTaskError as error:
                # A user's error that the worker raised is its cause.
                raise error.cause if isinstance(error.cause, EdgeditError) else error from None
            else:
                self._alive = True
                yield from outcomes

    def _give(self, actor: Any, tasks: Iterator[Task], batch: int) -> bool:
        """Gives a worker photos, if it has room for them and there are any."""
        has = [photos for other, photos in self._at_work.values() if other is actor]
        if len(has) >= AHEAD or any(self._losses[task.name] for photos in has for task in photos):
            return False
        if self._again:
            # Alone: it may be the reason.
            photos = [] if has else [self._again.popleft()]
        else:
            photos = list(islice(tasks, batch))
        if photos:
            self._at_work[actor.process.remote(photos)] = actor, photos
        return bool(photos)

    def _lost(self, actor: Any, photos: list[Task], error: Exception) -> Iterator[Outcome]:
        if actor in self._actors:
            self._deaths += not self._alive
            if self._deaths >= LOSSES:
                raise RuntimeUnavailableError(
                    "workers of Ray die before they have edited a photo; see its logs"
                ) from error
            self._actors[self._actors.index(actor)] = self._new()
            self._say("a worker was lost; its photos are done again")
        self._losses.update(task.name for task in photos)
        for task in photos:
            if self._losses[task.name] < LOSSES or not self._alive:
                self._again.append(task)
            else:
                yield failed(task, Failure("worker lost", f"{task.name}: {LOSSES} workers died while they had it"))
