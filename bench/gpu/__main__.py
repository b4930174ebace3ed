"""The command line: `python -m bench.gpu --budget 540 --out DIR`; see the package for what it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from bench import machine
from bench.gpu.accuracy import accuracy
from bench.gpu.carried import join
from bench.gpu.context import Context
from bench.gpu.floors import ceilings
from bench.gpu.jobs import latency, precisions, scaling
from bench.gpu.models import Model, load_models
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
from training.measuring.judges import JudgeFiles

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


@dataclass(frozen=True, kw_only=True)
class GpuBenchOptions:
    """Do what waits for a GPU, inside the seconds given; run it again to go on."""

    out: Path
    """Folder of results and state. To go on from another machine's results, give a copy of its folder."""
    budget: float = 540.0
    """Seconds that it may take."""
    device: Literal["cuda", "cpu"] = "cuda"
    """The first GPU; or cpu, which tries the queue itself where there is no GPU."""
    job: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Only this job; may be repeated."""
    bundle: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=DIRECTORY of a bundle; may be repeated. The portrait bundle if left out; where its generator is not at hand,
    its family with random weights."""
    generator: Path | None = None
    """File of `python -m bench.gpu.carried`, which completes the portrait bundle."""
    random: tuple[str, ...] = ("faces-1024",)
    """Families to measure with random weights."""
    row: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Only this row of the latency table; may be repeated."""
    method: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Only this method of the paper's Table 5, and e4e; may be repeated."""
    passes: int = 100
    """Passes of everything that is timed."""
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Batch sizes of the scaling job."""
    edits: tuple[int, ...] = (1, 4, 16)
    """Edits of one photo, with one inversion and with an inversion each."""
    faces: Path | None = None
    """Folder or tar of aligned faces, for training and accuracy; accuracy makes do with edgedit's own photo."""
    lpips: Path | None = None
    """LPIPS weights (safetensors)."""
    identity: Path | None = None
    """Face embedder (ONNX)."""
    age_gender: Path | None = None
    """Judge of age and gender (ONNX), for the directions."""
    expression: Path | None = None
    """Judge of expression (ONNX), for the directions."""
    pose: Path | None = None
    """Judge of head pose (ONNX), for the directions."""
    max_faces: int = 64
    """Held-out photos that accuracy is measured on, at most."""
    recipe: str = "faces-1024-mobile"
    """Of the training."""
    run: Path | None = None
    """Folder of the training run; OUT-run if left out. Checkpoints in OUT that have gone further are put there."""
    from_bundle: Path | None = None
    """Bundle that the training starts from."""
    steps: int | None = None
    """Training steps of every stage, in place of the recipe's."""
    training_share: float = 0.4
    """Of the time, what training may take."""
    least: float = 20.0
    """Seconds without which no measurement is begun."""

    def command(self) -> str:
        """What repeats this run, without paths of this machine."""
        words = ["python -m bench.gpu"]
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if value == option.default:
                continue
            name = f"--{option.name.replace('_', '-')}"
            if option.name in ("job", "bundle", "row", "method"):
                items = [item.partition("=")[0] + "=BUNDLE" if option.name == "bundle" else item for item in value]
                words += [f"{name} {item!r}" if " " in item else f"{name} {item}" for item in items]
            elif isinstance(value, tuple):
                words.append(" ".join([name, *map(str, value)]))
            else:
                words.append(f"{name} {option.name.upper() if isinstance(value, Path) else value}")
        return " ".join(words)


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
    if options.device != "cpu" and not torch.cuda.is_available():
        raise EdgeditError(
            f"PyTorch {torch.__version__} finds no CUDA device here: give --device cpu to try the queue without one"
        )
    context: Context

    def describe() -> dict[str, Any]:
        about = machine.about(options.device, options.command())
        # In place: the plan's contexts share it.
        context.ceilings.update(ceilings(options.device))
        about["ceilings"] = dict(context.ceilings)
        if options.device != "cpu":
            # Under load they say more than at rest.
            about["device"]["clocks_after_ceilings"] = machine.clocks(options.device)
        return about

    queue = Queue(options.out, options.budget, describe, say)
    context = Context(
        device=options.device,
        out=options.out,
        models=_models(options),
        left=queue.left,
        seconds=options.budget,
        passes=options.passes,
        warm=min(10, options.passes),
        least=options.least,
        rows=options.row,
        methods=options.method,
        batches=options.batches,
        edits=options.edits,
        data=options.faces,
        lpips=options.lpips,
        identity=options.identity,
        judges=JudgeFiles(age_gender=options.age_gender, expression=options.expression, pose=options.pose),
        photos=options.max_faces,
        recipe=options.recipe,
        run=options.run,
        from_bundle=options.from_bundle,
        steps=options.steps,
        share=options.training_share,
    )
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
