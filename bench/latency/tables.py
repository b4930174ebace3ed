"""A run of `measure` for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.program import table


def report(result: Mapping[str, Any], console: Console) -> None:
    """Prints rows, starts, and what was not measured and why."""
    console.print(_rows(result))
    if result["starts"]:
        console.print(_starts(result))
    base = result["base"]
    lines = [
        f"× is how many times faster than {base} in the same round: medians of passes in turns, 95 % intervals",
        "products, copies: shares of what the machine did at most in the same rounds; copies as if no node were fused",
        *(f"not measured: {name}: {reason}" for name, reason in result["not_measured"].items()),
    ]
    for line in lines:
        console.print(line)


def _rows(result: Mapping[str, Any]) -> Table:
    made = table(("Graph, batch", "Runtime"), ("ms", "×", "products", "copies"))
    for row in result["rows"]:
        name = f"{row['runtime']}:{row['precision']}"
        made.add_row(
            f"{row['graph']}, {row['batch']}",
            name,
            f"{row['median_ms']:,.1f}",
            "-"
            if row["speedup"] is None
            else f"{row['speedup']:.2f}{_bounds(row['speedup_interval']) if name != result['base'] else ''}",
            *(
                "-" if row.get(share) is None else f"{row[share]:.0%}"
                for share in ("share_of_product", "share_of_copy")
            ),
        )
    return made


def _starts(result: Mapping[str, Any]) -> Table:
    made = table(("Cold start",), ("libraries s", "load s", "first run s", "picture s", "memory GiB"))
    for row in result["starts"]:
        stages = (row[name]["median_ms"] / 1e3 for name in ("start_ms", "load_ms", "first_ms", "picture_ms"))
        peak = row["peak_bytes"]
        made.add_row(row["name"], *(f"{stage:.2f}" for stage in stages), f"{peak / 2**30:.2f}" if peak else "-")
    return made


def _bounds(within: list[float] | None) -> str:
    return f" ({within[0]:.2f}-{within[1]:.2f})" if within else ""
