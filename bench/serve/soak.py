"""A long run under mixed load: nothing may grow, no answer may change, and nothing may fail that should not.

python -m bench.serve.soak --out FILE --seconds 600
"""

from __future__ import annotations

import collections
import math
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.program import program, save, say
from bench.serve.options import Transport
from bench.serve.targets import client
from edgedit.editor import PORTRAIT_BUNDLE, open_bundle
from engines.bundle import Bundle
from engines.bundle.provenance import provenance
from engines.errors import EdgeditError
from engines.store import check_output
from serving.client import Client, DeadlineError, Handle, RequestError
from serving.client.regions import PREFIX
from serving.local import RELEASE, processes
from serving.local.server import LocalTriton
from serving.local.supervisor import SHARED_MEMORY
from serving.repository import RepositoryOptions, write_repository

WAYS: tuple[Transport, ...] = ("grpc", "http", "shm")
PHOTOS, HELD = 16, 4
"""Photos that are edited, and how many of their inversions the server may hold: it forgets all the time. Every caller
keeps a crop of each, and has to have met them all by the end of the warm-up."""
WARM_UP = 0.25
"""Share of the run after which what is held counts."""
TIMEOUT = 120.0
BANDS = 4
"""Bands of a picture whose mean colours are those of its other answers ..."""
ROUNDING = 0.01
"""... within so many levels."""

Kind = Literal["invert", "edit", "sweep", "ended sweep", "unknown direction", "no time"]
_WEIGHTS: dict[Kind, int] = {
    "invert": 15, "edit": 50, "sweep": 15, "ended sweep": 10, "unknown direction": 5, "no time": 5
}  # fmt: skip

LIMITS = {"server_bytes": 16 << 20, "shared_bytes": 8 << 20, "descriptors": 8, "threads": 8, "client_bytes": 16 << 20}
"""The most that may be added between the first and the last third of the run after its warm-up. A leak of 100 bytes an
answer is more than that within ten minutes; allocators and a rare larger batch are less."""


@dataclass(frozen=True, kw_only=True)
class SoakOptions:
    """Ask a server of this machine for ten minutes, and see whether anything grows."""

    out: Path | None = None
    """The JSON file to write."""
    bundle: Path = PORTRAIT_BUNDLE
    """The bundle to serve."""
    seconds: float = 600.0
    """The length of the run."""
    callers: int = 4
    """Callers at a time, of all transports in turn."""
    every: float = 1.0
    """Seconds between two looks at what is held."""

    def check(self) -> None:
        """Finds out before any work whether these options will do.

        Raises:
            EdgeditError: for the first that will not, by its name.
        """
        if not 1 <= self.seconds <= 86_400 or not 1 <= self.callers <= 64 or not 0 < self.every <= self.seconds / 8:
            raise EdgeditError(
                "--seconds must be 1 to 86400, --callers 1 to 64, --every an eighth of --seconds at most"
            )
        if self.out is not None:
            check_output(self.out)


@dataclass(frozen=True)
class Sample:
    """The memory, files and threads that are held at one moment."""

    seconds: float
    """The time since the run began."""
    server_bytes: int
    """Memory of the server and its models' processes that is no file's, without what they share."""
    shared_bytes: int
    """Shared memory of the server and of the clients."""
    descriptors: int
    """Open files and connections of the server and its models' processes."""
    threads: int
    """Threads of the same processes."""
    client_bytes: int
    """Memory of this process that is no file's."""


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """The growth of each figure: the median of the last third less that of the first, after the warm-up.

    Raises:
        EdgeditError: for too few samples to tell.
    """
    steady = [sample for sample in samples if sample.seconds >= WARM_UP * samples[-1].seconds]
    third = len(steady) // 3
    if third < 1:
        raise EdgeditError("too short a run to tell whether anything grows")
    growth = {}
    for name in LIMITS:
        values = [getattr(sample, name) for sample in steady]
        growth[name] = statistics.median(values[-third:]) - statistics.median(values[:third])
    return growth


def grown(by: Mapping[str, float]) -> list[str]:
    """The figures that grew by more than their limits, each in words."""
    return [f"{name} grew by {by[name]:.0f}, more than {limit}" for name, limit in LIMITS.items() if by[name] > limit]


class Caller:
    """One thread of the load, with a client of its own."""

    def __init__(self, client: Client, photos: np.ndarray, shared: Answers, seed: int) -> None:
        self.client, self.photos, self.shared = client, photos, shared
        self.dice = random.Random(seed)
        self.handles: dict[int, Handle] = {}
        self.counts: collections.Counter[str] = collections.Counter()

    def step(self) -> None:
        """One call, or a sweep.

        Raises:
            EdgeditError: for an answer that is another one than before, or a failure that should not be.
        """
        (kind,) = self.dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        photo = self.dice.randrange(len(self.photos))
        if kind == "invert" or photo not in self.handles:
            self.handles[photo] = self.client.invert(self.photos[photo], aligned=True)
            self.counts["invert"] += 1
        self.counts[kind] += kind != "invert"
        handle, strength = self.handles[photo], self.dice.choice((-1.0, -0.5, 0.5, 1.0))
        if kind == "edit":
            self.shared.check((photo, strength), self.client.edit(handle, {self.shared.direction: strength}))
        elif kind == "sweep":
            for strength, image in self.client.sweep(handle, self.shared.direction, -1, 1, 5):
                self.shared.check((photo, strength), image)
        elif kind == "ended sweep":
            for strength, image in self.client.sweep(handle, self.shared.direction, -1, 1, 9):
                self.shared.check((photo, strength), image)
                break
        elif kind == "unknown direction":
            self._refused(RequestError, lambda: self.client.edit(handle, {"no such direction": 1.0}))
        elif kind == "no time":
            self._refused(DeadlineError, lambda: self.client.edit(handle, {self.shared.direction: 1.0}, timeout=1e-4))

    @staticmethod
    def _refused(error: type[EdgeditError], call: Callable[[], object]) -> None:
        try:
            call()
        except error:
            return
        raise EdgeditError(f"a call that could not be was answered, and not with {error.__name__}")


class Answers:
    """The first answer to each question; every further one must be the same.

    A batch of another size may round a few values in a million the other way, so mean colours of bands are compared.
    """

    def __init__(self, direction: str) -> None:
        self.direction = direction
        self.images = 0
        self._known: dict[tuple[int, float], np.ndarray] = {}
        self._lock = threading.Lock()

    def check(self, question: tuple[int, float], image: np.ndarray) -> None:
        """Compares an answer.

        Raises:
            EdgeditError: if it is another one.
        """
        means = np.stack([band.mean(axis=(0, 1)) for band in np.array_split(image, BANDS)])
        with self._lock:
            self.images += 1
            known = self._known.setdefault(question, means)
        if np.abs(known - means).max() > ROUNDING:
            raise EdgeditError(f"photo {question[0]} at strength {question[1]:g} was answered differently than before")


def run(options: SoakOptions, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Runs the load and looks at what is held.

    Returns:
        What is written to the file: samples, calls by kind, growth, and what grew too much.

    Raises:
        EdgeditError: for options that will not do, a server that does not start, or any wrong answer.
    """
    options.check()
    bundle = open_bundle(options.bundle, progress=say)
    size = bundle.family.image_shape
    photos = np.random.default_rng(0).integers(0, 256, (PHOTOS, *size, 3), np.uint8)
    with tempfile.TemporaryDirectory(prefix="edgedit-soak-") as folder:
        held = RepositoryOptions(cache_bytes=HELD * _inversion_bytes(bundle))
        repository = write_repository(bundle, Path(folder) / "models", held)
        with LocalTriton(repository, shared_memory=True) as server:
            pid = server.pid
            samples, callers, answers = _load(server, photos, options, say)
            if server.pid != pid:
                raise EdgeditError("the server has died during the run")
    by = growth(samples)
    counts = sum((caller.counts for caller in callers), collections.Counter())
    result = provenance(
        f"python -m bench.serve.soak --out OUT --seconds {options.seconds:g} --callers {options.callers}"
    ) | {
        "bundle": bundle.name,
        "server": f"Triton {RELEASE}, development server, on the same machine",
        "seconds": options.seconds,
        "callers": options.callers,
        "calls": dict(sorted(counts.items())),
        "images": answers.images,
        "growth": by,
        "limits": LIMITS,
        "grown": grown(by),
        "samples": [asdict(sample) for sample in samples],
    }
    if options.out is not None:
        save(options.out, result)
    return result


def _load(
    server: LocalTriton, photos: np.ndarray, options: SoakOptions, say: Callable[[str], None]
) -> tuple[list[Sample], list[Caller], Answers]:
    stop, failed = threading.Event(), list[BaseException]()

    def work(caller: Caller) -> None:
        try:
            while not stop.is_set():
                caller.step()
        except BaseException as error:
            failed.append(error)
            stop.set()

    ways = [WAYS[k % len(WAYS)] for k in range(options.callers)]
    clients = [client(server.http if way == "http" else server.grpc, way, timeout=TIMEOUT) for way in ways]
    try:
        answers = Answers(next(iter(clients[0].directions(timeout=TIMEOUT))))
        callers = [Caller(one, photos, answers, seed) for seed, one in enumerate(clients)]
        threads = [threading.Thread(target=work, args=(caller,), daemon=True) for caller in callers]
        for thread in threads:
            thread.start()
        samples: list[Sample] = []
        start = last_report = time.monotonic()
        while not stop.wait(options.every) and (now := time.monotonic()) - start < options.seconds:
            samples.append(look(server, now - start))
            if now - last_report >= 60:
                last_report = now
                held = samples[-1].server_bytes / 2**20
                say(f"{now - start:.0f} s: {answers.images} images, the server holds {held:.1f} MiB")
        stop.set()
        for thread in threads:
            thread.join(2 * TIMEOUT)
    finally:
        stop.set()
        for one in clients:
            one.close()
    if failed:
        raise EdgeditError(f"the load failed after {answers.images} images: {failed[0]}") from failed[0]
    return samples, callers, answers


def look(server: LocalTriton, seconds: float) -> Sample:
    """A sample of what is held now."""
    pids = list(server.processes())
    regions = [*SHARED_MEMORY.glob(f"{server.prefix}*"), *SHARED_MEMORY.glob(f"{PREFIX}{os.getpid()}_*")]
    return Sample(
        seconds=round(seconds, 2),
        server_bytes=sum(map(processes.anonymous_bytes, pids)),
        shared_bytes=sum(map(_size, regions)),
        descriptors=sum(map(processes.descriptors, pids)),
        threads=sum(map(processes.threads, pids)),
        client_bytes=processes.anonymous_bytes(os.getpid()),
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _inversion_bytes(bundle: Bundle) -> int:
    outputs = bundle.graph("invert").outputs
    return sum(math.prod(map(int, spec.shape[1:])) * np.dtype(spec.dtype).itemsize for spec in outputs)


def soak(options: SoakOptions) -> None:
    """Runs the load and says what grew.

    Raises:
        EdgeditError: as `run`, or if anything grew by more than its limit.
    """
    result = run(options, say)
    for name, value in result["growth"].items():
        say(f"{name} grew by {value:.0f}, of {LIMITS[name]} at most")
    if result["grown"]:
        raise EdgeditError("; ".join(result["grown"]))
    say(f"{result['images']} images, all as they were at first; nothing grew")


if __name__ == "__main__":
    program(soak, SoakOptions, "bench.serve.soak")
