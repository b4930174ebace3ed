"""One run: graphs in all candidates, in turns; ceilings of the machine; starts in processes of their own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench import machine
from bench.latency import alone
from bench.latency.candidates import BASE, Candidate
from bench.latency.inputs import feeds
from bench.timing import Call, Rounds, interval, rounds, speedups, summary, waiting, warmed
from engines.bundle import Bundle
from engines.bundle.engine_manifest import ENGINES_FOLDER
from engines.bundle.layers import LayerReport
from engines.cpus import threads as allowed
from engines.errors import EdgeditError, first_line
from engines.inspector.figures import Figures
from engines.inspector.subject import graph_report, load
from engines.runtimes import Runtime, create

BOUNDARY = (
    "Runtime.run by the host's clock: named NumPy arrays in, named NumPy arrays out, checks and copies included; the "
    "graph is loaded and warm"
)
START_BOUNDARY = (
    "a new process each time, files in the system's cache: start_ms to the interpreter and its libraries, load_ms to "
    "bundle checked and graphs loaded, first_ms to the first picture; picture_ms is all of it"
)
LEAST = 6
"""Rounds without which a median has no 95 % interval."""
_WARM = 10
"""Rounds of warming up at most."""
_SETTLE = 0.01
"""Seconds after a call in which the threads of its runtime stop waiting for more."""

Progress = Callable[[str], None]
_FAILURES = (EdgeditError, RuntimeError, ValueError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The amount of measuring."""

    passes: int = 20
    """Rounds of each graph and batch size, at most."""
    seconds: float = 240.0
    """The time for all rounds together; what one graph leaves goes to the next."""
    least: int = LEAST
    """Rounds that are made all the same."""
    starts: int = 3
    """Processes of each candidate."""


@dataclass
class _Run:
    bundle: Bundle
    device: str
    given: dict[str, np.ndarray]
    """An inversion of one image: what graphs take from each other."""
    budget: Budget
    ceiling: machine.Ceiling
    progress: Progress
    missing: dict[str, str]
    ceilings: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def measure(
    bundle: Bundle,
    chosen: Sequence[Candidate],
    graphs: Sequence[str],
    batches: Sequence[int],
    *,
    budget: Budget | None = None,
    device: str = "cpu",
    threads: int = 0,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Rows of every graph, batch size and candidate, how they were measured, and starts.

    Args:
        bundle: whose graphs are run.
        chosen: what runs them; the first is what ratios are given to.
        graphs: their names.
        batches: images of one pass.
        budget: how much is measured.
        device: whose ceilings are measured in turns with the rows.
        threads: of the ceilings; candidates have theirs in their options.
        progress: told every row.

    Raises:
        BundleError: if the bundle lacks a graph.
        EdgeditError: if nothing could be measured.
    """
    for graph in graphs:
        bundle.graph(graph)
    budget = budget or Budget()
    starts = _starts(bundle, chosen, graphs, budget.starts, progress)
    run = _Run(
        bundle,
        device,
        _inversion(bundle, chosen),
        budget,
        machine.ceiling(device, threads),
        progress,
        starts.pop("not_measured"),
    )
    counts = {}
    left = budget.seconds
    for place, graph in enumerate(graphs):
        try:
            report = graph_report(bundle, graph)
        except EdgeditError as error:
            report = None
            progress(f"no counts: {first_line(error)}")
        counts[graph] = _counts(report) if report else None
        for number, batch in enumerate(batches):
            shares = (len(graphs) - place) * len(batches) - number
            began = time.monotonic()
            _graph(run, chosen, graph, batch, report, left / shares)
            left = max(0.0, left - (time.monotonic() - began))
    if not run.rows:
        raise EdgeditError("nothing could be measured: " + "; ".join(f"{k}: {v}" for k, v in run.missing.items()))
    return {
        "bundle": {"name": bundle.name, "family": bundle.family.name},
        "boundary": BOUNDARY,
        "base": chosen[0].name,
        "threads": allowed(threads),
        "passes": budget.passes,
        "seconds": budget.seconds,
        "ceilings": run.ceilings,
        "graphs": counts,
        "rows": run.rows,
        **starts,
        "not_measured": run.missing,
    }


def describe(ceilings: Mapping[str, Any]) -> str:
    """The two ceilings in words."""
    rate = f"{ceilings['matmul_tflops'] * 1e3:,.0f} GFLOP/s ({ceilings['matmul_dtype']}, {ceilings['matmul_by']})"
    return f"copies at {ceilings['copy_gbs']:.1f} GB/s, products at {rate}"


def _counts(report: LayerReport) -> dict[str, int]:
    figures = Figures(report.layers)
    return {"macs": figures.macs, "weight_bytes": figures.weight_bytes, "activation_bytes": figures.activation_bytes}


def _inversion(bundle: Bundle, chosen: Sequence[Candidate]) -> dict[str, np.ndarray]:
    """An inversion of a random photo, by the first candidate that can; empty if none can."""
    for one in chosen:
        try:
            invert = create(one.runtime, bundle, "invert", **one.options)
            return invert.run(feeds(invert.inputs, 1, {}))
        except _FAILURES:
            continue
    return {}


def _graph(
    run: _Run, chosen: Sequence[Candidate], graph: str, batch: int, report: LayerReport | None, seconds: float
) -> None:
    """Adds the rows of one graph at one batch size."""
    loaded: dict[str, Runtime] = {}
    outputs: dict[str, dict[str, np.ndarray]] = {}
    by_name = {one.name: one for one in chosen}
    for name, one in by_name.items():
        if one.graphs is not None and graph not in one.graphs:
            run.missing[f"{name} {graph}"] = f"engine {one.engine} has no such graph"
            continue
        try:
            loaded[name] = create(one.runtime, run.bundle, graph, **one.options)
            outputs[name] = loaded[name].run(feeds(loaded[name].inputs, batch, run.given))
        except _FAILURES as error:
            loaded.pop(name, None)
            run.missing[f"{name} {graph}, batch {batch}"] = first_line(error)
    if not loaded:
        return
    inputs = {name: feeds(one.inputs, batch, run.given) for name, one in loaded.items()}
    calls: dict[str, tuple[Call]] = {name: (lambda name=name: loaded[name].run(inputs[name]),) for name in loaded}
    calls |= {name: (waiting(call, run.device),) for name, call in run.ceiling.calls.items()}
    ends = time.monotonic() + seconds
    cold = warmed(calls, most=_WARM, device="cpu", until=lambda: time.monotonic() > ends)
    warm = _rounds(calls, run.budget, ends)
    samples = {name: [one for (one,) in stages] for name, stages in warm.samples.items()}
    ceilings = run.ceiling.rates(samples)
    run.ceilings.append({"graph": graph, "batch": batch, **ceilings})
    run.progress(f"{graph}, batch {batch}: {describe(ceilings)}")
    base = chosen[0].name
    for name in loaded:
        one, times = by_name[name], samples[name]
        counted = report if one.engine is None else _report(run.bundle, one.engine, graph)
        row = {
            "graph": graph,
            "batch": batch,
            "runtime": one.runtime,
            "precision": one.precision,
            **summary(times),
            "warm_up_ms": [round(stages[0], 5) for stages in cold.samples[name]],
            **ratio(times, samples.get(base)),
            **(_attained(counted, batch, statistics.median(times), ceilings) if counted else {}),
            "difference": _difference(outputs[name], outputs[base]) if base in outputs else None,
        }
        run.rows.append(row)
        run.progress(line(row, base))


def _report(bundle: Bundle, engine: str, graph: str) -> LayerReport | None:
    """The layers of an engine; None if it was built without them."""
    try:
        return load(bundle.path / ENGINES_FOLDER / engine, graph).report
    except EdgeditError:
        return None


def _rounds(calls: Mapping[str, Sequence[Call]], budget: Budget, ends: float) -> Rounds:
    made = 0

    def enough() -> bool:
        nonlocal made
        made += 1
        return made >= budget.least and time.monotonic() > ends

    return rounds(calls, count=budget.passes, device="cpu", until=enough, after=lambda name: time.sleep(_SETTLE))


def ratio(samples: Sequence[float], base: Sequence[float] | None) -> dict[str, Any]:
    """The median speedup over the base, of the ratios within rounds, with its 95 % interval; None without a base."""
    if base is None:
        return {"speedup": None, "speedup_interval": None}
    pairs = speedups(samples, base)
    within = interval(pairs)
    return {"speedup": statistics.median(pairs), "speedup_interval": list(within) if within else None}


def _attained(report: LayerReport, batch: int, milliseconds: float, ceilings: Mapping[str, Any]) -> dict[str, float]:
    """Rates of a pass beside the ceilings. Bytes are those of every node by itself, as if nothing were fused or stayed
    in a cache: what a runtime spares of them can take it beyond the ceiling of copies."""
    counts = _counts(report)
    gflops = 2 * batch * counts["macs"] / milliseconds / 1e6
    gbs = (counts["weight_bytes"] + batch * counts["activation_bytes"]) / milliseconds / 1e6
    return {
        "gflops": gflops,
        "share_of_product": gflops / ceilings["matmul_tflops"] / 1e3,
        "gbs": gbs,
        "share_of_copy": gbs / ceilings["copy_gbs"],
    }


def _difference(own: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray]) -> float:
    """The largest difference of an output to the base's, over the largest value of that."""
    differences = [
        float(np.abs(own[name].astype(np.float32) - value.astype(np.float32)).max() / (np.abs(value).max() or 1))
        for name, value in base.items()
    ]
    return max(differences)


def _starts(
    bundle: Bundle, chosen: Sequence[Candidate], graphs: Sequence[str], count: int, progress: Progress
) -> dict[str, Any]:
    """Cold starts and peak memory of every candidate, in turns."""
    pair = [graph for graph in ("invert", "edit") if graph in bundle.manifest.graphs]
    first = pair if len(pair) == 2 else list(graphs[:1])
    taken: dict[str, list[dict[str, Any]]] = {one.name: [] for one in chosen}
    missing: dict[str, str] = {}
    for _ in range(count):
        for one in chosen:
            if f"{one.name} start" in missing:
                continue
            try:
                taken[one.name].append(alone.start(bundle.path, one.runtime, one.options, first))
            except EdgeditError as error:
                missing[f"{one.name} start"] = first_line(error)
                continue
            progress(f"{one.name}: first picture after {taken[one.name][-1]['picture_ms'] / 1e3:.2f} s")
    names = ("start_ms", "load_ms", "first_ms", "picture_ms")
    rows = [
        {
            "name": name,
            **{stage: summary([made[stage] for made in own]) for stage in names},
            "peak_bytes": max((made["peak_bytes"] for made in own if made["peak_bytes"]), default=None),
        }
        for name, own in taken.items()
        if own
    ]
    return {"start_boundary": START_BOUNDARY, "start_graphs": first, "starts": rows, "not_measured": missing}


def line(row: Mapping[str, Any], base: str = BASE) -> str:
    """A row in words."""
    name, within = f"{row['runtime']}:{row['precision']}", row["speedup_interval"]
    line = f"{row['graph']}, batch {row['batch']}: {name} {row['median_ms']:,.1f} ms"
    if name == base or row["speedup"] is None:
        return line
    bounds = f" ({within[0]:.2f} to {within[1]:.2f})" if within else ""
    return f"{line}, {row['speedup']:.2f} times {base}{bounds}"
