"""Two runs against each other: the rows that got slower or faster beyond noise."""

from __future__ import annotations

import statistics
from typing import Any, Literal

from rich.table import Table

from bench.latency.result import Result, Row
from bench.program import table as new_table
from bench.timing import interval, speedups
from engines.errors import EdgeditError

Verdict = Literal["slower", "faster", "same", "too few passes", "another machine"]
Interval = tuple[float, float] | None


def compare(a: Result, b: Result) -> dict[str, Any]:
    """Rows that both have, with how B stands to A.

    A row is judged by its ratio to a base that both have, which is taken in one run each and so means the same on
    different machines: it is slower or faster if the 95 % intervals of the ratios do not overlap. The base itself has
    its time alone, and is judged by that if device and threads are the same.

    Raises:
        EdgeditError: if they have no row in common.
    """
    rows_a, rows_b = ({row.key: row for row in one.rows} for one in (a, b))
    keys = [key for key in rows_a if key in rows_b]
    if not keys:
        raise EdgeditError("the two files have no graph, batch size and runtime in common: nothing can be compared")
    names = dict.fromkeys(name for _, _, name in keys)
    base = next((name for name in (a.base, b.base) if name in names), next(iter(names)))
    differs = _differs(a, b)
    same_machine = not {"device", "threads"} & differs.keys()
    compared = []
    for graph, batch, name in keys:
        if name == base:
            by, sides = "time", tuple(_time(rows[graph, batch, name]) for rows in (rows_a, rows_b))
        elif all((graph, batch, base) in rows for rows in (rows_a, rows_b)):
            by = "ratio"
            sides = tuple(_ratio(rows[graph, batch, name], rows[graph, batch, base]) for rows in (rows_a, rows_b))
        else:
            continue
        (median_a, within_a), (median_b, within_b) = sides
        # Of a time, less is faster.
        change = median_a / median_b if by == "time" else median_b / median_a
        verdict = _verdict(within_a, within_b, change) if by == "ratio" or same_machine else "another machine"
        compared.append(
            {
                "graph": graph,
                "batch": batch,
                "name": name,
                "by": by,
                "a": median_a,
                "a_interval": within_a,
                "b": median_b,
                "b_interval": within_b,
                "change": change,
                "verdict": verdict,
            }
        )
    return {
        "base": base,
        "differs": differs,
        "rows": compared,
        "only_a": [list(key) for key in rows_a if key not in rows_b],
        "only_b": [list(key) for key in rows_b if key not in rows_a],
        **{verdict: sum(row["verdict"] == verdict for row in compared) for verdict in ("slower", "faster")},
    }


def _differs(a: Result, b: Result) -> dict[str, tuple[Any, Any]]:
    """Device, threads, versions and boundary where they are not the same."""

    def facts(one: Result) -> dict[str, Any]:
        return {"device": one.device.name, "threads": one.threads, "boundary": one.boundary, **one.versions}

    facts_a, facts_b = facts(a), facts(b)
    return {
        name: (facts_a.get(name), facts_b.get(name))
        for name in facts_a | facts_b
        if facts_a.get(name) != facts_b.get(name)
    }


def _time(row: Row) -> tuple[float, Interval]:
    return statistics.median(row.samples_ms), interval(row.samples_ms)


def _ratio(row: Row, base: Row) -> tuple[float, Interval]:
    if len(row.samples_ms) != len(base.samples_ms):
        raise EdgeditError(
            f"{row.graph}, batch {row.batch}: {row.name} and {base.name} have not the same rounds: measure them again"
        )
    pairs = speedups(row.samples_ms, base.samples_ms)
    return statistics.median(pairs), interval(pairs)


def _verdict(a: Interval, b: Interval, change: float) -> Verdict:
    if a is None or b is None:
        return "too few passes"
    if a[0] <= b[1] and b[0] <= a[1]:
        return "same"
    return "faster" if change > 1 else "slower"


def table(result: dict[str, Any]) -> Table:
    """The rows for a terminal."""
    made = new_table(("Graph", "Batch", "Runtime"), ("A", "B", "B to A"))
    made.add_column("")
    for row in result["rows"]:
        unit = "ms" if row["by"] == "time" else "×"
        sides = [f"{row[side]:.2f} {unit}" for side in ("a", "b")]
        made.add_row(
            row["graph"], str(row["batch"]), row["name"], *sides, f"{100 * (row['change'] - 1):+.1f} %", row["verdict"]
        )
    return made


def remarks(result: dict[str, Any]) -> list[str]:
    """The differences between the runs, and the rows that one of them lacks, in lines."""
    lines = [f"differs: {name}: {a or 'none'} in A, {b or 'none'} in B" for name, (a, b) in result["differs"].items()]
    for side in ("a", "b"):
        if only := result[f"only_{side}"]:
            shown = ", ".join(f"{graph} batch {batch} {name}" for graph, batch, name in only)
            lines.append(f"only in {side.upper()}: {shown}")
    lines.append(
        f"× is how many times faster than {result['base']} in the same run; B to A: above 0 % is faster; slower or "
        "faster: the 95 % intervals do not overlap"
    )
    return lines
