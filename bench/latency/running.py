"""A run that times a bundle, from the names of graphs and runtimes to the printed table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.latency import measure as measuring
from bench.latency.candidates import BASE, candidates
from bench.latency.measure import Budget
from bench.latency.tables import report
from bench.machine import about
from edgedit.editor import open_bundle
from engines.contracts import SELECTIONS
from engines.errors import EdgeditError


def run(
    bundle: Path,
    *,
    graphs: Sequence[str],
    batches: Sequence[int],
    runtimes: Sequence[str] = (),
    device: str = "cpu",
    threads: int = 0,
    budget: Budget,
    command: str,
    console: Console,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Times graphs in every runtime that is here, and prints the table.

    Args:
        bundle: the directory of the bundle whose graphs are run.
        graphs: names of graphs, or of sets of them.
        batches: images of one pass.
        runtimes: names of runtimes or candidates; empty for all.
        device, threads, budget: see `measure`.
        command: what repeats the run.
        console: where the table is printed.
        say: is told every row, and what is not measured.

    Raises:
        BundleError: if it is not a bundle, or lacks a graph.
        EdgeditError: for an option that will not do or a runtime that is not here, before any work; or if nothing
            could be measured.
    """
    if min(batches, default=0) < 1 or len(set(batches)) < len(batches):
        raise EdgeditError("--batch takes sizes of 1 or more, each once")
    if budget.passes < 1 or not 0 <= budget.seconds < float("inf") or budget.starts < 0 or threads < 0:
        raise EdgeditError("--passes must be 1 or more, --seconds, --starts and --threads 0 or more")
    opened = open_bundle(bundle, progress=say)
    names = list(dict.fromkeys(name for word in graphs for name in SELECTIONS.get(word, (word,))))
    for name in names:
        opened.graph(name)
    chosen, missing = candidates(opened, device=device, threads=threads, wanted=runtimes)
    for name, reason in missing.items():
        say(f"not measured: {name}: {reason}")
    if chosen[0].name != BASE:
        say(f"without {BASE}, 1.0× is {chosen[0].name}")
    origin = about(device, command)
    result = measuring.measure(
        opened, chosen, names, batches, budget=budget, device=device, threads=threads, progress=say
    )
    result["not_measured"] = missing | result["not_measured"]
    report(result, console)
    return origin | result
