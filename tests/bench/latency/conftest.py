"""Results of `edgedit bench latency`, made up."""

from __future__ import annotations

from typing import Any

from bench.latency.measure import ratio
from bench.timing import summary

TORCH, ORT = "torch:fp32", "onnxruntime:fp32"


def result(samples: dict[str, list[float]], *, device: str = "a machine", **more: Any) -> dict[str, Any]:
    """One graph at batch 1; the first candidate is the base."""
    base = next(iter(samples))
    rows = [
        {
            "graph": "edit",
            "batch": 1,
            "runtime": name.partition(":")[0],
            "precision": name.partition(":")[2],
            **summary(times),
            **ratio(times, samples[base]),
        }
        for name, times in samples.items()
    ]
    return {
        "command": "edgedit bench latency",
        "date": "2026-11-28T12:00:00+00:00",
        "device": {"name": device, "kind": "cpu"},
        "versions": {"onnxruntime": "1.24.1"},
        "threads": 1,
        "base": base,
        "boundary": "here to there",
        "start_boundary": "now to then",
        "ceilings": [],
        "rows": rows,
        "starts": [],
        "not_measured": {},
    } | more
