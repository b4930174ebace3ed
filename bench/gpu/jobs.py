"""The jobs of the queue, in their order. Each gives its steps; `queue` runs them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch

from bench.gpu.context import Context
from bench.gpu.models import Model
from bench.gpu.queue import Outcome, Step
from bench.gpu.rows import BASE, ROWS, Pass, Setup, capture
from bench.timing import passes, summary
from engines.contracts import PIPELINES
from engines.errors import EdgeditError

NO_TIME = "no time was left"
CUDA_GRAPH = ", CUDA graph"


def latency(context: Context) -> Iterator[Step]:
    """Every row on every pipeline: a step is one pipeline of one model, whose rows are measured in turn."""
    for model in context.models:
        for graph in PIPELINES:
            step = _latency(context, model, graph)
            yield Step(f"{model.name} {graph}", step, seconds=context.least)


def _latency(context: Context, model: Model, graph: str) -> Callable[[], Outcome]:
    def run() -> Outcome:
        calls: dict[str, Pass] = {}
        missing: dict[str, str] = {}
        inputs = model.inputs(graph, 1)
        for row in ROWS:
            if context.rows and row.name not in context.rows:
                continue
            # What is prepared already must still be measured.
            if context.left() < context.least:
                missing[row.name] = NO_TIME
                continue
            if (reason := row.lacks(model.device)) is not None:
                missing[row.name] = reason
                continue
            setup = Setup(model, graph, row.precision, inputs)
            try:
                calls[row.name] = call = row.prepare(setup)
            except (EdgeditError, RuntimeError, ValueError) as error:
                missing[row.name] = _line(error)
                continue
            if row.captured:
                _add_captured(calls, missing, row.name, call, model.device)
        samples = passes(
            calls, count=context.passes, warm=context.warm, device=model.device, until=lambda: context.left() < 2
        )
        gmacs = model.gmacs(graph)
        whole = all(len(times) == context.passes for times in samples.values())
        done = whole and NO_TIME not in missing.values()
        row = {
            **model.about(),
            "graph": graph,
            "batch": 1,
            "gmacs": gmacs,
            "floor_ms": context.floor_ms(gmacs),
            "clocks": context.clocks(),
            "times": {name: summary(times) for name, times in samples.items()},
            "ratios": _ratios(samples),
            "not_measured": missing,
        }
        return Outcome(row, done)

    return run


def _add_captured(calls: dict[str, Pass], missing: dict[str, str], name: str, call: Pass, device: str) -> None:
    if device == "cpu":
        missing[name + CUDA_GRAPH] = "CUDA graphs need a CUDA device"
        return
    try:
        calls[name + CUDA_GRAPH] = capture(call, device)
    except RuntimeError as error:
        missing[name + CUDA_GRAPH] = f"cannot be captured: {_line(error)}"


def scaling(context: Context) -> Iterator[Step]:
    """Batches of growing size with the memory they take; and one inversion that serves many edits."""
    for model in context.models:
        for graph in PIPELINES:
            yield Step(f"{model.name} {graph} batches", _batches(context, model, graph), seconds=context.least)
        yield Step(f"{model.name} encode once", _encode_once(context, model), seconds=context.least)


def _batches(context: Context, model: Model, graph: str) -> Callable[[], Outcome]:
    def run() -> Outcome:
        rows = []
        refused: dict[str, str] = {}
        on_gpu = model.device != "cpu"
        for batch in context.batches:
            if rows and context.left() < context.least:
                refused[str(batch)] = NO_TIME
                continue
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                setup = Setup(model, graph, "fp16", model.inputs(graph, batch))
                call = setup.passing(model.module(graph, "fp16"))
                samples = passes(
                    {"pass": call},
                    count=context.passes,
                    warm=context.warm,
                    device=model.device,
                    until=lambda: context.left() < 2,
                )["pass"]
            except torch.OutOfMemoryError as error:
                refused[str(batch)] = _line(error)
                continue
            median = statistics.median(samples)
            peak = torch.cuda.max_memory_allocated() if on_gpu else None
            rows.append(
                {
                    "batch": batch,
                    **summary(samples),
                    "images_per_second": 1e3 * batch / median,
                    "peak_memory_bytes": peak,
                }
            )
        row = {**model.about(), "graph": graph, "row": "eager FP16 channels-last", "batches": rows}
        whole = all(one["passes"] == context.passes for one in rows)
        return Outcome(row | {"not_measured": refused}, done=whole and NO_TIME not in refused.values())

    return run


def _encode_once(context: Context, model: Model) -> Callable[[], Outcome]:
    def run() -> Outcome:
        one = {g: Setup(model, g, "fp16", model.inputs(g, 1)) for g in ("invert", "edit")}
        invert, edit = (setup.passing(model.module(g, "fp16")) for g, setup in one.items())

        def repeated(edits: int, anew: bool) -> Pass:
            def session() -> None:
                for index in range(edits):
                    if anew or index == 0:
                        invert()
                    edit()

            return session

        calls = {
            f"{edits} edits, {'an inversion each' if anew else 'one inversion'}": repeated(edits, anew)
            for edits in context.edits
            for anew in (False, True)
        }
        samples = passes(
            calls, count=context.passes, warm=context.warm, device=model.device, until=lambda: context.left() < 2
        )
        whole = all(len(times) == context.passes for times in samples.values())
        row = {**model.about(), "row": "eager FP16 channels-last"}
        return Outcome(row | {"times": {name: summary(times) for name, times in samples.items()}}, whole)

    return run


def _ratios(samples: dict[str, list[float]]) -> dict[str, float]:
    """How many times faster than the base row."""
    if BASE not in samples:
        return {}
    base = statistics.median(samples[BASE])
    return {name: base / statistics.median(times) for name, times in samples.items()}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
