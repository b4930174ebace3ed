"""A result in lines for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.serve.statistics import IN_PROCESS

_HEAD = (
    f"{'model':13}{'way':11}{'batching':9}{'callers':>8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'images/s':>10}"
    f"{'added ms':>10}{'added %':>9}{'% of batched':>14}"
)


def report(result: dict[str, Any], say: Callable[[str], None]) -> None:
    """Says every row, what it adds to the same number of callers in process, and the aims beside what was reached."""
    say(_HEAD)
    for one in result["rows"]:
        in_process = one["way"] == IN_PROCESS
        batching = {"on": "batches", "off": "single"}[one["batching"]] if in_process else one["batching"]
        line = f"{one['model']:13}{one['way']:11}{batching:9}{one['concurrency']:8d}"
        line += f"{one['p50_ms']:9.2f}{one['p95_ms']:9.2f}{one['p99_ms']:9.2f}{one['images_per_second']:10.1f}"
        if not in_process:
            over = one["over_single"]
            line += f"{over['p50_ms']:10.2f}{over['p50_percent']:9.1f}{one['over_batched']['throughput_percent']:14.1f}"
        say(line)
    for one in result["perf_analyzer"]:
        told = "nothing stable"
        if one["stable"]:
            told = f"p50 {one['p50_ms']:.2f} ms, p99 {one['p99_ms']:.2f} ms, {one['images_per_second']:.1f} images/s"
        say(f"perf_analyzer {one['way']}, batching {one['batching']}, {one['concurrency']} callers: {told}")
    for aim in result["aims"]:
        wanted = f"at most {aim['at_most']:g}" if "at_most" in aim else f"at least {aim['at_least']:g}"
        say(f"{aim['aim']}: {aim['reached']:.1f}, wanted {wanted}: {'met' if aim['met'] else 'not met'}")
