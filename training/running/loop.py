"""The training loop that the four stages share: resume, logs, sample grids, checkpoints, averaged weights.

Every step seeds torch from (seed, step), and batches depend on (seed, step) alone. A resumed run therefore computes
the same numbers as one that was never interrupted, without storing generator states.
"""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from engines.family import ModelFamily
from engines.store import atomic_file
from training import parallel
from training.data import to_pixels
from training.running import checkpoint
from training.stages.protocol import Stage


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """Settings of a stage's length and reports.

    Raises:
        ValueError: at construction, for counts below 1.
    """

    steps: int
    """Optimizer steps in all, those of earlier runs included."""
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 250
    grid_every: int = 250
    minutes: float = math.inf
    """Stop, with a checkpoint, after this long."""
    decay: float = 0.0
    """Share of the steps, the last ones, over which every learning rate falls along a half cosine to a tenth. A short
    run gains more from it than from as many steps at the full rate."""
    warm_up: int = 0
    """Steps, the first ones, over which every learning rate rises evenly from zero."""

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "checkpoint_every", "grid_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.decay <= 1.0:
            raise ValueError(f"decay must be a share between 0 and 1, got {self.decay}")

    def rate(self, step: int) -> float:
        """Factor of the learning rates at a step: 1, and over the last `decay` of the steps down to 0.1."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        first = self.steps * (1.0 - self.decay)
        if step <= first:
            return 1.0
        done = min((step - first) / (self.steps - first), 1.0)
        return 0.1 + 0.9 * (1.0 + math.cos(math.pi * done)) / 2


def save_grid(images: Tensor, path: Path) -> None:
    """Writes R x C x 3 x H x W images in [-1, 1] as one PNG of R rows and C columns."""
    rows, columns, _, height, width = images.shape
    pixels = to_pixels(images.flatten(0, 1)).reshape(rows, columns, height, width, 3)
    sheet = pixels.swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")


def step_seed(seed: int, step: int) -> int:
    """A seed of its own for every (seed, step), and for every process but the first besides."""
    rank = parallel.rank()
    return int(np.random.SeedSequence((seed, step, rank) if rank else (seed, step)).generate_state(1)[0])


def _save(stage: Stage, run: Path, step: int, seconds: float, options: LoopOptions) -> None:
    if parallel.rank():
        return
    tensors: dict[str, Tensor] = {}
    optimizers: dict[str, Any] = {}
    for name, module in stage.modules.items():
        tensors |= checkpoint.module_tensors(name, module)
    for name, optimizer in stage.optimizers.items():
        packed, optimizers[name] = checkpoint.pack_optimizer(f"optimizer.{name}", optimizer)
        tensors |= packed
    meta = {
        "stage": stage.name,
        "step": step,
        "seconds": seconds,
        "seed": options.seed,
        "processes": parallel.processes(),
        "config": stage.config(),
        "optimizers": optimizers,
        "torch": torch.__version__,
    }
    checkpoint.save(run / "checkpoint", tensors, meta)


def _resume(stage: Stage, run: Path, options: LoopOptions) -> tuple[int, float]:
    try:
        tensors, meta = checkpoint.load(run / "checkpoint")
    except FileNotFoundError:
        return 0, 0.0
    if meta["stage"] != stage.name:
        raise ValueError(f"{run} holds a checkpoint of stage {meta['stage']!r}, not {stage.name!r}")
    if meta["seed"] != options.seed:
        raise ValueError(f"{run} was started with seed {meta['seed']}, not {options.seed}")
    if ModelFamily.from_dict(meta["config"]["family"]) != ModelFamily.from_dict(stage.config()["family"]):
        raise ValueError(f"{run} was trained for another model family than the one asked for")
    for name, module in stage.modules.items():
        try:
            module.load_state_dict(checkpoint.strip(name, tensors))
        except RuntimeError as error:
            raise ValueError(f"the {name} in {run} is damaged: {str(error).splitlines()[-1].strip()}") from error
    for name, optimizer in stage.optimizers.items():
        checkpoint.unpack_optimizer(f"optimizer.{name}", optimizer, tensors, meta["optimizers"][name])
    return int(meta["step"]), float(meta["seconds"])


class _Log:
    """A CSV of averaged scalars, cut back to the resumed step."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= step]
        self.pending: dict[str, list[float]] = {}

    def add(self, scalars: dict[str, float | Tensor]) -> None:
        for name, value in scalars.items():
            self.pending.setdefault(name, []).append(float(value))

    def flush(self, step: int, seconds: float) -> dict[str, str]:
        row = {"step": str(step), "seconds": f"{seconds:.1f}"}
        row |= {name: f"{sum(values) / len(values):.5g}" for name, values in self.pending.items()}
        self.pending = {}
        self.rows.append(row)
        names: dict[str, None] = {}
        for old in self.rows:
            names |= dict.fromkeys(old)
        with atomic_file(self.path) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(names))
            writer.writeheader()
            writer.writerows(self.rows)
        return row


def train(stage: Stage, run: Path, options: LoopOptions) -> int:
    """Runs a stage to `options.steps`, resuming from `run` if it holds a checkpoint.

    Writes `run/checkpoint/`, `run/log.csv` and `run/grids/*.png`. A stop by Ctrl-C or by `minutes` leaves a checkpoint.

    Processes may train together (see `training.parallel`): a step then stands for one batch in each.

    Returns:
        The step reached.

    Raises:
        ValueError: if the checkpoint in `run` belongs to another stage, seed or family, or is damaged.
        FloatingPointError: if a loss is not finite; the last checkpoint stays.
    """
    run.mkdir(parents=True, exist_ok=True)
    # Before the checkpoint's own, so that a resumed run obeys the rates it was asked for.
    rates = {name: [group["lr"] for group in o.param_groups] for name, o in stage.optimizers.items()}
    step, seconds = _resume(stage, run, options)
    for optimizer in stage.optimizers.values():
        parallel.average_gradients(optimizer)
    log = _Log(run / "log.csv", step)
    started = time.monotonic()
    columns = (
        TextColumn(stage.name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, disable=parallel.rank() > 0) as progress:
        task = progress.add_task(stage.name, total=options.steps, completed=step, note="")
        try:
            while step < options.steps and parallel.first_says(time.monotonic() - started < options.minutes * 60):
                torch.manual_seed(step_seed(options.seed, step))
                # By hand: LambdaLR of torch 2.13 gives the same rates, but takes more lines to resume at a step.
                for name, optimizer in stage.optimizers.items():
                    for group, rate in zip(optimizer.param_groups, rates[name], strict=True):
                        group["lr"] = rate * options.rate(step)
                scalars = stage.step(step)
                step += 1
                # Every step: what a non-finite loss did to the weights must not reach a checkpoint.
                if bad := [name for name, value in scalars.items() if not math.isfinite(float(value))]:
                    raise FloatingPointError(f"{stage.name}: {', '.join(bad)} is not finite at step {step}")
                log.add(scalars)
                elapsed = seconds + time.monotonic() - started
                if parallel.rank() == 0 and (step % options.log_every == 0 or step == options.steps):
                    row = log.flush(step, elapsed)
                    note = _note(row)
                    progress.update(task, note=note)
                    if not progress.console.is_terminal:
                        progress.console.print(f"{stage.name} {step}/{options.steps} {note}", highlight=False)
                if parallel.rank() == 0 and (step % options.grid_every == 0 or step == options.steps):
                    save_grid(stage.grid(), run / "grids" / f"{step:07d}.png")
                if step % options.checkpoint_every == 0:
                    _save(stage, run, step, elapsed, options)
                progress.update(task, completed=step)
        except KeyboardInterrupt:
            progress.console.print(f"{stage.name}: stopped at step {step}")
        _save(stage, run, step, seconds + time.monotonic() - started, options)
    return step


def _note(row: dict[str, str]) -> str:
    return " ".join(f"{k}={v}" for k, v in row.items() if k not in ("step",))
