"""Servers, rounds and rows."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.program import save
from bench.serve import statistics
from bench.serve.loop import Slice, closed_loop
from bench.serve.options import ServeBenchOptions
from bench.serve.statistics import IN_PROCESS, Cell
from bench.serve.targets import InProcess, Session, SharedTensors, Subject, Target, Tensors
from edgedit.editor import open_bundle
from engines.bundle import Bundle
from engines.bundle.provenance import provenance
from engines.errors import EdgeditError
from serving.local import RELEASE
from serving.local.canary import asking
from serving.local.server import LocalTriton

Say = Callable[[str], None]

_STAGES = {
    "queue": "queue_ms",
    "compute_input": "input_ms",
    "compute_infer": "infer_ms",
    "compute_output": "output_ms",
}


def run(options: ServeBenchOptions, say: Say = lambda _: None) -> dict[str, Any]:
    """Measures, and writes the result and the plot.

    Args:
        options: what to measure.
        say: is told in one line what is being done.

    Returns:
        What is in the JSON file.

    Raises:
        EdgeditError: for options that will not do, a server that does not start, or one whose images are not those
            in process.
    """
    options.check()
    draw = _drawing(options.plot)
    bundle = open_bundle(options.bundle, progress=say)
    subject = Subject(bundle, options.threads)
    load = [_load()]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgedit-bench-")))
        servers = {way: stack.enter_context(_server(bundle, options, folder, way)) for way in options.batching}
        threads = stack.enter_context(ThreadPoolExecutor(max(options.concurrency), "bench"))
        targets = {
            key: stack.enter_context(contextlib.closing(target))
            for key, target in _targets(subject, servers, options).items()
        }
        differences = _check_images(targets, threads)
        slices, served = _measure(targets, servers, threads, options, say)
        load.append(_load())
        analyzed = []
        if options.perf_analyzer is not None:
            from bench.serve.perf import analyze

            for way, server in servers.items():
                analyzed += analyze(options.perf_analyzer, server, subject.image.nbytes, way, options, say)
    rows = []
    for cell, done in slices.items():
        per_call = cell.concurrency if _batched(cell) else 1
        one = statistics.row(cell, done, per_call, options.samples)
        rows.append(one | ({"server": _stages(served[cell])} if cell in served else {}))
    statistics.compare(rows)
    result = provenance(options.command()) | {
        "bundle": bundle.name,
        "server": f"Triton {RELEASE}, development server, on the same machine",
        "clients": "threads of one process",
        "threads": options.threads,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "load_average": load,
        "largest_difference": differences,
        "aims": statistics.aims(rows),
        "rows": rows,
        "perf_analyzer": analyzed,
    }
    save(options.out, result)
    draw(result)
    return result


def _drawing(path: Path | None) -> Callable[[dict[str, Any]], None]:
    """The function that draws a result; that matplotlib is missing is said here, before the measuring."""
    if path is None:
        return lambda result: None
    from bench.figures import save as save_figure
    from bench.serve.plot import figure

    return lambda result: save_figure(figure(result), path)


@contextlib.contextmanager
def _server(bundle: Bundle, options: ServeBenchOptions, folder: Path, batching: str) -> Iterator[LocalTriton]:
    from serving.repository import RepositoryOptions, write_repository

    written = RepositoryOptions(threads=options.threads, dynamic_batching=batching == "on")
    repository = write_repository(bundle, folder / f"batching-{batching}", written)
    with LocalTriton(repository, shared_memory=True) as server:
        yield server


def _targets(
    subject: Subject, servers: Mapping[str, LocalTriton], options: ServeBenchOptions
) -> dict[tuple[str, str, str], Target]:
    """The targets by model, way and batching."""
    targets: dict[tuple[str, str, str], Target] = {
        ("edit", IN_PROCESS, "off"): InProcess(subject, batched=False),
        ("edit", IN_PROCESS, "on"): InProcess(subject, batched=True),
    }
    for batching, server in servers.items():
        for transport in options.transport:
            address = server.http if transport == "http" else server.grpc
            for model in options.model:
                if model == "edit_session":
                    target: Target = Session(subject, address, transport, max(options.concurrency))
                elif transport == "shm":
                    target = SharedTensors(subject, address)
                else:
                    target = Tensors(subject, address, transport)
                targets[model, transport, batching] = target
    return targets


def _check_images(targets: Mapping[tuple[str, str, str], Target], threads: ThreadPoolExecutor) -> int:
    """The largest difference of a pixel from the image in process, in levels: 0 with the same ONNX Runtime.

    Raises:
        EdgeditError: if it is more than rounding.
    """
    images = {key: threads.submit(target.calls(1)[0]).result() for key, target in targets.items()}
    expected = images["edit", IN_PROCESS, "off"].astype(int)
    worst = 0
    for key, image in images.items():
        if image.shape != expected.shape:
            raise EdgeditError(f"{' '.join(key)} gave an image {image.shape}, not {expected.shape}")
        difference = int(np.abs(image.astype(int) - expected).max())
        if difference > 1:
            raise EdgeditError(f"{' '.join(key)} gave another image than in process, by {difference} levels of 255")
        worst = max(worst, difference)
    return worst


def _measure(
    targets: Mapping[tuple[str, str, str], Target],
    servers: Mapping[str, LocalTriton],
    threads: ThreadPoolExecutor,
    options: ServeBenchOptions,
    say: Say,
) -> tuple[dict[Cell, list[Slice]], dict[Cell, dict[str, float]]]:
    """Every cell once per round. Those of one concurrency stand together, in an order that is another one each round:
    what the machine does meanwhile meets them alike."""
    slices = {Cell(*key, concurrency): list[Slice]() for key in targets for concurrency in options.concurrency}
    served: dict[Cell, dict[str, float]] = {}
    for k in range(options.rounds):
        order = random.Random(k)
        for concurrency in order.sample(options.concurrency, len(options.concurrency)):
            say(f"round {k + 1} of {options.rounds}: {concurrency} callers")
            for key in order.sample(list(targets), len(targets)):
                cell = Cell(*key, concurrency)
                server = None if cell.way == IN_PROCESS else servers[cell.batching]
                before = _statistics(server) if server is not None else {}
                slices[cell].append(closed_loop(targets[key].calls(concurrency), options.seconds, threads))
                if server is not None:
                    total = served.setdefault(cell, {})
                    for name, value in _statistics(server).items():
                        total[name] = total.get(name, 0) + value - before[name]
    return slices, served


def _statistics(server: LocalTriton) -> dict[str, float]:
    """Sums of the model `edit`, as the server counts them."""
    with asking(server.http, 10.0) as triton:
        stats = triton.get_inference_statistics("edit")["model_stats"][0]
    sums = {name: float(stats["inference_stats"][name]["ns"]) for name in _STAGES}
    success = stats["inference_stats"]["success"]["count"]
    return sums | {"requests": success, "images": stats["inference_count"], "runs": stats["execution_count"]}


def _stages(sums: Mapping[str, float]) -> dict[str, float]:
    """The stages of a request's time in the model `edit`, and the mean size of its batches."""
    requests = max(sums["requests"], 1)
    stages = {short: round(sums[name] / requests / 1e6, 3) for name, short in _STAGES.items()}
    return stages | {"batch": round(sums["images"] / max(sums["runs"], 1), 2)}


def _batched(cell: Cell) -> bool:
    return cell.way == IN_PROCESS and cell.batching == "on"


def _load() -> float:
    """Processes that wanted to run, over the last minute."""
    return round(os.getloadavg()[0], 2)
