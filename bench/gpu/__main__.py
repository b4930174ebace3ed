"""The command line: `python -m bench.gpu --budget 540 --out DIR`; see the package for what it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

from bench import machine
from bench.gpu.accuracy import accuracy
from bench.gpu.carried import join
from bench.gpu.context import Context
from bench.gpu.floors import ceilings as measure_ceilings
from bench.gpu.jobs import latency, precisions, scaling
from bench.gpu.models import Model, load_models
from bench.gpu.options import GpuBenchOptions
from bench.gpu.queue import Queue, Step
from bench.gpu.report import report
from bench.gpu.runtimes import runtimes
from bench.gpu.table5 import table5
from bench.gpu.training import training
from bench.program import program, say
from bench.table5.times import chosen
from edgedit.editor import PORTRAIT_BUNDLE
from engines.errors import EdgeditError, RuntimeUnavailableError
from engines.family import FACES_1024_MOBILE

_WITHOUT = f"{FACES_1024_MOBILE.name} is measured with random weights in place of the portrait bundle"

JOBS: dict[str, Callable[[Context], Iterator[Step]]] = {
    "training": training,
    "latency": latency,
    "runtimes": runtimes,
    "accuracy": accuracy,
    "scaling": scaling,
    "precisions": precisions,
    "table5": table5,
}
_OF_EACH_MODEL = (("latency", "runtimes", "accuracy"), ("scaling", "precisions"))
"""Jobs that are taken for one model after the other, those of the first tuple before those of the second."""


def plan(context: Context) -> Iterator[tuple[str, Context]]:
    """Jobs in the order of their worth: training, what the aims are about for the first model, then for the next; then
    what is broader; Table 5 at last."""
    yield "training", context
    for jobs in _OF_EACH_MODEL:
        for model in context.models:
            yield from ((job, dataclasses.replace(context, models=[model])) for job in jobs)
    yield "table5", context


def run(options: GpuBenchOptions) -> None:
    """Takes the jobs in turn until all are done or the time is up.

    Raises:
        EdgeditError: for options that will not do, or a device that is not there.
    """
    if unknown := [job for job in options.job if job not in JOBS]:
        raise EdgeditError(f"there is no job {unknown[0]!r}; there are {', '.join(JOBS)}")
    chosen(options.method)
    if options.budget <= 0 or options.passes < 1:
        raise EdgeditError("--budget must be above 0 and --passes 1 or more")
    if options.on_gpu and not torch.cuda.is_available():
        raise EdgeditError(
            f"PyTorch {torch.__version__} finds no CUDA device here: give --device cpu to try the queue without one"
        )
    ceilings: dict[str, Any] = {}

    def describe() -> dict[str, Any]:
        about = machine.about(options.device, options.command())
        # In place: the contexts of the plan share it.
        ceilings.update(measure_ceilings(options.device))
        about["ceilings"] = dict(ceilings)
        if options.on_gpu:
            # Under load they say more than at rest.
            about["device"]["clocks_after_ceilings"] = machine.clocks(options.device)
        return about

    queue = Queue(options.out, options.budget, describe, say)
    context = Context(options, _models(options), queue.left, ceilings)
    ended = True
    for name, own in plan(context):
        if options.job and name not in options.job:
            continue
        if not queue.take(name, JOBS[name](own)):
            ended = False
            break
    for line in report(options.out):
        say(line)
    if ended:
        say(f"nothing waits any more; results are in {options.out}")
    else:
        say(f"the time is up; run it again to go on: {options.command()}")


def _models(options: GpuBenchOptions) -> list[Model]:
    """The bundles, the portrait first, and families with random weights."""
    if options.bundle:
        return load_models(options.bundle, options.random, options.device)
    try:
        place = PORTRAIT_BUNDLE
        if options.generator is not None:
            folder = options.out.with_name(f"{options.out.name}-portrait")
            place = join(PORTRAIT_BUNDLE, options.generator, folder)
        return load_models((f"portrait={place}",), options.random, options.device)
    except RuntimeUnavailableError as error:
        say(f"{_WITHOUT}, as its own are not at hand: {error}")
        families = dict.fromkeys((FACES_1024_MOBILE.name, *options.random))
        return load_models((), tuple(families), options.device)


if __name__ == "__main__":
    program(run, GpuBenchOptions, "bench.gpu")
