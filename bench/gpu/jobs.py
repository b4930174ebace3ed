"""The jobs that time PyTorch: latency, the slider, the remaining precisions, and batches. `queue` runs their steps.

Rows are those of `bench.latency`, so that its report and its comparison read them, with the floor beside each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from bench.gpu.context import NO_TIME, Context
from bench.gpu.floors import beside
from bench.gpu.models import Model
from bench.gpu.queue import Outcome, Step
from bench.gpu.rows import BASE, GRAPH, ROWS, Pass, Row, Setup, capture
from bench.latency.measure import ratio
from bench.timing import summary, synchronize
from engines.contracts import PIPELINES, graph_contract
from engines.errors import EdgeditError, first_line

SLIDER = "slider"
"""A name in place of a graph's: `edit` of a photo that was inverted before, from a new strength on the host to the
picture on the host."""


def latency(context: Context) -> Iterator[Step]:
    """The rows that the aims are about, on every pipeline and on a slider's step, each step of one model."""
    yield from _of_rows(context, [row for row in ROWS if row.first], (*PIPELINES, SLIDER))


def precisions(context: Context) -> Iterator[Step]:
    """The remaining rows, beside the one that ratios are given to."""
    yield from _of_rows(context, [row for row in ROWS if not row.first or row.name == BASE], PIPELINES)


def _of_rows(context: Context, chosen: Sequence[Row], graphs: Sequence[str]) -> Iterator[Step]:
    for model in context.models:
        for graph in graphs:
            measured = partial(_measured, context, model, graph, chosen)
            yield Step(f"{model.name} {graph}", measured, seconds=context.options.least)


def _measured(context: Context, model: Model, graph: str, chosen: Sequence[Row]) -> Outcome:
    slider = graph == SLIDER
    calls, missing = _prepared(context, model, "edit" if slider else graph, chosen, slider)
    # A slider's step ends with the picture on the host: the host's clock tells how long it took.
    rows = flat(context, model, graph, context.timed(calls, "cpu" if slider else model.device))
    return outcome(context, model, rows, missing, graph=graph, clocks=context.clocks())


def outcome(
    context: Context, model: Model, rows: list[dict[str, Any]], missing: dict[str, str], **facts: Any
) -> Outcome:
    """A step's rows with what it is of; done unless the time was up before all of them were measured whole."""
    whole = all(row["passes"] == context.options.passes for row in rows) and NO_TIME not in missing.values()
    return Outcome({**model.about(), **facts, "rows": rows, "not_measured": missing}, whole)


def flat(
    context: Context, model: Model, graph: str, samples: Mapping[str, Sequence[float]], batch: int = 1
) -> list[dict[str, Any]]:
    """Rows of `bench.latency` from samples by "runtime:precision", with ratios to the base if it is among them."""
    rows = []
    for name, times in samples.items():
        runtime, _, precision = name.rpartition(":")
        row = {
            "graph": graph,
            "batch": batch,
            "runtime": runtime,
            "precision": precision,
            **summary(times),
            **ratio(times, samples.get(BASE)),
        }
        work = model.work("edit" if graph == SLIDER else graph)
        rows.append(row | beside(work, context.ceilings, precision, row))
    return rows


def _prepared(
    context: Context, model: Model, graph: str, chosen: Sequence[Row], slider: bool
) -> tuple[dict[str, Pass], dict[str, str]]:
    """Passes by name, those captured as CUDA graphs too, and why the others cannot be measured."""
    calls: dict[str, Pass] = {}
    missing: dict[str, str] = {}
    inputs = model.inputs(graph, 1)
    stepping = _stepping(model, inputs) if slider else lambda call: call
    for row in chosen:
        if context.options.row and row.name not in context.options.row:
            continue
        # What is prepared already must still be measured.
        if context.left() < context.options.least + row.takes:
            missing[row.name] = NO_TIME
            continue
        if (reason := row.lacks(model.device)) is not None:
            missing[row.name] = reason
            continue
        try:
            call = row.prepare(Setup(model, graph, row.precision, inputs))
        except (EdgeditError, RuntimeError, ValueError) as error:
            missing[row.name] = first_line(error)
            continue
        calls[row.name] = stepping(call)
        name = f"{row.runtime}{GRAPH}:{row.precision}"
        captured = _captured(missing, name, call, model.device)
        if captured is not None:
            calls[name] = stepping(captured)
    return calls, missing


def _captured(missing: dict[str, str], name: str, call: Pass, device: str) -> Pass | None:
    if device == "cpu":
        missing[name] = "CUDA graphs need a CUDA device"
        return None
    try:
        return capture(call, device)
    except RuntimeError as error:
        missing[name] = f"cannot be captured: {first_line(error)}"
        return None


def _stepping(model: Model, inputs: tuple[torch.Tensor, ...]) -> Callable[[Pass], Pass]:
    """Makes of a pass of `edit` a slider's step: another `delta_w` to the device, the pass, the picture to the host."""
    names = [spec.name for spec in graph_contract(model.family, "edit")[0]]
    delta = inputs[names.index("delta_w")]
    strengths = [step * delta.cpu() for step in (0.5, 1.0)]
    if model.device != "cpu":
        strengths = [strength.pin_memory() for strength in strengths]
    picture: list[torch.Tensor] = []

    def stepping(call: Pass) -> Pass:
        taken = 0

        def step() -> None:
            nonlocal taken
            taken += 1
            with torch.inference_mode():
                delta.copy_(strengths[taken % 2], non_blocking=True)
                image = call()
                if not picture:
                    picture.append(torch.empty_like(image, device="cpu", pin_memory=model.device != "cpu"))
                picture[0].copy_(image, non_blocking=True)
            synchronize(model.device)

        return step

    return stepping


def scaling(context: Context) -> Iterator[Step]:
    """Batches of growing size with the memory they take; and one inversion that serves many edits."""
    for model in context.models:
        for graph in PIPELINES:
            batches = partial(_batches, context, model, graph)
            yield Step(f"{model.name} {graph} batches", batches, seconds=context.options.least)
        once = partial(_encode_once, context, model)
        yield Step(f"{model.name} encode once", once, seconds=context.options.least)


def _batches(context: Context, model: Model, graph: str) -> Outcome:
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    for batch in context.options.batches:
        if rows and context.left() < context.options.least:
            refused[f"batch {batch}"] = NO_TIME
            continue
        try:
            rows += _batch(context, model, graph, batch, refused)
        except torch.OutOfMemoryError as error:
            refused[f"batch {batch}"] = first_line(error)
    return outcome(context, model, rows, refused, graph=graph)


def _batch(context: Context, model: Model, graph: str, batch: int, refused: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Eager FP16 at a batch size, and captured as a CUDA graph."""
    on_gpu = model.device != "cpu"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    setup = Setup(model, graph, "fp16", model.inputs(graph, batch))
    calls = {"eager:fp16": setup.passing(model.module(graph, "fp16"))}
    captured = _captured(refused, f"eager{GRAPH}:fp16, batch {batch}", calls["eager:fp16"], model.device)
    if captured is not None:
        calls[f"eager{GRAPH}:fp16"] = captured
    samples = context.timed(calls, model.device)
    peak = torch.cuda.max_memory_allocated() if on_gpu else None
    for row in flat(context, model, graph, samples, batch):
        yield row | {"images_per_second": 1e3 * batch / row["median_ms"], "peak_memory_bytes": peak}


def _encode_once(context: Context, model: Model) -> Outcome:
    invert, edit = (
        Setup(model, g, "fp16", model.inputs(g, 1)).passing(model.module(g, "fp16")) for g in ("invert", "edit")
    )

    def session(edits: int, inversions: int) -> None:
        for index in range(edits):
            if index < inversions:
                invert()
            edit()

    calls: dict[str, Pass] = {}
    for edits in context.options.edits:
        calls[f"{edits} edits, one inversion"] = partial(session, edits, 1)
        calls[f"{edits} edits, an inversion each"] = partial(session, edits, edits)
    samples = context.timed(calls, model.device)
    whole = all(len(times) == context.options.passes for times in samples.values())
    times = {name: summary(own) for name, own in samples.items()}
    return Outcome({**model.about(), "row": "eager:fp16", "times": times}, whole)
