"""Prometheus metrics of one gateway, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics. Labels have few values whatever callers send: routes, not paths; names of keys are left out."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        name = "edgedit_gateway_{}".format
        self._requests = Counter(
            name("requests"), "Answers by route, method and status.", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            name("request_seconds"),
            "From the head of a request to the end of its answer.",
            ["route"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._stages = Histogram(
            name("stage_seconds"),
            "Time in one stage: body, queue, photo, backend, encode.",
            ["stage"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._refused = Counter(name("refused"), "Requests refused, by problem.", ["problem"], registry=registry)
        self._bytes = Counter(name("bytes"), "Bytes of bodies.", ["direction"], registry=registry)
        self._ready = Gauge(name("ready"), "1 if the last canary was answered rightly.", registry=registry)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Adds a gauge that is read when the metrics are."""
        Gauge(f"edgedit_gateway_{name}", text, registry=self._registry).set_function(value)

    def answered(self, route: str, method: str, status: int, seconds: float, size_in: int, size_out: int) -> None:
        """Counts a request that was answered; 499 stands for a caller that left."""
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._bytes.labels("in").inc(size_in)
        self._bytes.labels("out").inc(size_out)

    def refused(self, problem: str) -> None:
        """Counts a problem by its kind."""
        self._refused.labels(problem).inc()

    def ready(self, value: bool) -> None:
        """Sets what the last canary said."""
        self._ready.set(float(value))

    def stage(self, name: str) -> AbstractContextManager[object]:
        """Times a stage, also one that fails."""
        return self._stages.labels(name).time()

    def text(self) -> bytes:
        """The exposition, of `CONTENT_TYPE`."""
        return generate_latest(self._registry)
