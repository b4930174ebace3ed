"""A result of serving for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from bench.program import table
from bench.serve.statistics import IN_PROCESS

_FIGURES = ("callers", "p50 ms", "p95 ms", "p99 ms", "images/s", "added ms", "added %", "% of batched")


def report(result: dict[str, Any], console: Console) -> None:
    """Prints every row, what it adds to the same number of callers in process, and the aims beside what was reached."""
    made = table(("model", "way", "batching"), _FIGURES)
    for one in result["rows"]:
        in_process = one["way"] == IN_PROCESS
        batching = {"on": "batches", "off": "single"}[one["batching"]] if in_process else one["batching"]
        figures = [str(one["concurrency"]), *(f"{one[name]:.2f}" for name in ("p50_ms", "p95_ms", "p99_ms"))]
        figures.append(f"{one['images_per_second']:.1f}")
        if not in_process:
            over = one["over_single"]
            figures += [f"{over['p50_ms']:.2f}", f"{over['p50_percent']:.1f}"]
            figures.append(f"{one['over_batched']['throughput_percent']:.1f}")
        made.add_row(one["model"], one["way"], batching, *figures)
    console.print(made)
    for one in result["perf_analyzer"]:
        figures = "nothing stable"
        if one["stable"]:
            figures = f"p50 {one['p50_ms']:.2f} ms, p99 {one['p99_ms']:.2f} ms, {one['images_per_second']:.1f} images/s"
        line = f"perf_analyzer {one['way']}, batching {one['batching']}, {one['concurrency']} callers: {figures}"
        console.print(line)
    for aim in result["aims"]:
        wanted = f"at most {aim['at_most']:g}" if "at_most" in aim else f"at least {aim['at_least']:g}"
        line = f"{aim['aim']}: {aim['reached']:.1f}, wanted {wanted}: {'met' if aim['met'] else 'not met'}"
        console.print(line)
