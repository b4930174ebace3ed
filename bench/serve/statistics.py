"""Percentiles, differences between rows, and the aims beside what was reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.serve.loop import Slice

IN_PROCESS = "in-process"

ADDED = 5.0
"""Aim, in %: what Triton may add to the latency of an edit for one caller, with shared memory."""
THROUGHPUT = 95.0
"""Aim, in %: what must remain of the throughput of edits in batches in process, for eight callers."""


@dataclass(frozen=True, order=True)
class Cell:
    """One thing that is measured."""

    model: str
    """"edit" or "edit_session"; in process it is the same call for both."""
    way: str
    """The way to the session: "in-process" or a transport."""
    batching: str
    """Batching of the server, "on" or "off". In process, on: one caller with full batches; off: callers as named."""
    concurrency: int


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Percentiles, interpolated, and the mean.

    Raises:
        ValueError: without samples.
    """
    if not len(samples):
        raise ValueError("there are no samples")
    p50, p95, p99 = np.percentile(samples, (50, 95, 99))
    return {"p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99), "mean_ms": float(np.mean(samples))}


def thin(samples: Sequence[float], limit: int) -> list[float]:
    """At most `limit` of the samples, evenly over all and in their order, to a microsecond."""
    step = max(1, -(-len(samples) // limit))
    return [round(float(sample), 3) for sample in samples[::step]]


def row(cell: Cell, slices: Sequence[Slice], per_call: int, most_samples: int) -> dict[str, Any]:
    """One row of the result.

    Args:
        cell: what was measured.
        slices: one per round.
        per_call: images of one call.
        most_samples: the most samples to store.

    Raises:
        ValueError: if nothing was answered.
    """
    pooled = [latency for one in slices for latency in one.latencies]
    rates = [one.throughput * per_call for one in slices]
    return {
        "model": cell.model,
        "way": cell.way,
        "batching": cell.batching,
        "concurrency": cell.concurrency,
        "calls": len(pooled),
        **{name: round(value, 3) for name, value in summary(pooled).items()},
        "images_per_second": round(float(np.mean(rates)), 2),
        "rounds": {
            "p50_ms": [round(summary(one.latencies)["p50_ms"], 3) if one.latencies else None for one in slices],
            "images_per_second": [round(rate, 2) for rate in rates],
        },
        "samples_ms": thin(pooled, most_samples),
    }


def added(own: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    """The latency that a row adds to another, in ms and % of the median, and the % of the throughput that remains."""
    more = own["p50_ms"] - base["p50_ms"]
    return {
        "p50_ms": round(more, 3),
        "p50_percent": round(100 * more / base["p50_ms"], 2),
        "throughput_percent": round(100 * own["images_per_second"] / base["images_per_second"], 2),
    }


def compare(rows: Sequence[dict[str, Any]]) -> None:
    """Adds to every row of a server what it adds to the two rows in process at the same concurrency."""
    by_key = {_key(one): one for one in rows}
    for one in rows:
        if one["way"] == IN_PROCESS:
            continue
        for name, batching in (("over_single", "off"), ("over_batched", "on")):
            one[name] = added(one, by_key[("edit", IN_PROCESS, batching, one["concurrency"])])


def aims(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The aims beside what was reached; those whose rows were not measured are left out."""
    by_key = {_key(one): one for one in rows}
    result: list[dict[str, Any]] = []
    if (one := by_key.get(("edit", "shm", "on", 1))) is not None:
        reached = one["over_single"]["p50_percent"]
        base = by_key["edit", IN_PROCESS, "off", 1]
        aim = {"aim": "edit with shared memory, 1 caller: % added to the median in process", "at_most": ADDED}
        by_round = _by_round(one, base, "p50_ms", lambda a, b: 100 * (a - b) / b)
        result.append(aim | {"reached": reached, "by_round": by_round, "met": reached <= ADDED})
    if (one := by_key.get(("edit", "shm", "on", 8))) is not None:
        reached = one["over_batched"]["throughput_percent"]
        base = by_key["edit", IN_PROCESS, "on", 8]
        name = "edit with shared memory, 8 callers: % of the throughput of batches of 8 in process"
        by_round = _by_round(one, base, "images_per_second", lambda a, b: 100 * a / b)
        aim = {"aim": name, "at_least": THROUGHPUT}
        result.append(aim | {"reached": reached, "by_round": by_round, "met": reached >= THROUGHPUT})
    return result


def _by_round(
    one: dict[str, Any], base: dict[str, Any], name: str, ratio: Callable[[float, float], float]
) -> list[float | None]:
    pairs = zip(one["rounds"][name], base["rounds"][name], strict=True)
    return [round(ratio(a, b), 2) if a is not None and b else None for a, b in pairs]


def _key(one: dict[str, Any]) -> tuple[str, str, str, int]:
    return one["model"], one["way"], one["batching"], one["concurrency"]
