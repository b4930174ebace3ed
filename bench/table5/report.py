"""A result of `bench.table5.times.measure` for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.program import table as new_table


def report(result: Mapping[str, Any], console: Console) -> None:
    """Prints the table, and what was not measured and why."""
    console.print(table(result))
    few = f" of {result['passes_asked']}: the time was up" if result["passes"] < result["passes_asked"] else ""
    console.print(f"medians (and interquartile range) of {result['passes']} passes{few}; weights are random")
    if any(row["peak_memory_bytes"] for row in result["rows"]):
        console.print(f"memory: {result['memory']}")
    for key, reason in result["not_measured"].items():
        console.print(f"not measured: {key}: {reason}")


def table(result: Mapping[str, Any]) -> Table:
    """The rows for a terminal of 80 columns or more; times in seconds, as the paper gives them."""
    title = f"One edit of one image: {result['family']}, {result['how']}, {result['precision']}"
    ratios = (f"to {result['base']}\n×", f"paper\nto {result['base']} ×")
    figures = ("\nGMACs", "invert\ns", "edit\ns", "complete\ns", *ratios, "memory\nGiB")
    made = new_table(("Method",), figures, title)
    for row in result["rows"]:
        whole = row["complete"]
        made.add_row(
            row["method"],
            f"{row['gmacs']:.1f}",
            _seconds(row["invert"]["median_ms"]),
            _seconds(row["edit"]["median_ms"]),
            f"{_seconds(whole['median_ms'])} ({_seconds(whole['iqr_ms'], 2)})",
            _or_dash(row["ratio"], "{:.2f}"),
            _or_dash(row["paper_ratio"], "{:.2f}"),
            _or_dash(row["peak_memory_bytes"], "{:.2f}", 2**30),
        )
    return made


def _seconds(milliseconds: float, digits: int = 3) -> str:
    return f"{milliseconds / 1e3:#.{digits}g}".rstrip(".")


def _or_dash(value: float | None, form: str, unit: float = 1) -> str:
    return "-" if value is None else form.format(value / unit)
