"""A model trains on, stage after stage, from where its newest checkpoint or a bundle ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bench.gpu.checkpoints import STAGES, pack, step, unpack
from bench.gpu.context import Context
from bench.gpu.options import GpuBenchOptions
from bench.gpu.queue import Outcome, Step
from training.losses.image import LossFiles
from training.recipes import recipe
from training.running.directions import fit_directions
from training.running.folder import Run
from training.running.loop import LoopOptions
from training.running.run import TRAINED, render_pairs

_CHECKPOINT_EVERY = 500
PACKED = "checkpoints"
"""The folder of the checkpoints that travel, inside that of the results."""


def training(context: Context) -> Iterator[Step]:
    """A step is a stage. All share the time that training may take; a stage that is not finished goes on next time."""
    begun = context.left()
    share = context.options.training_share * context.options.budget

    def left() -> float:
        """The seconds that are left of the share, and never more than the whole run has."""
        return min(share - (begun - context.left()), context.left())

    lacks = _lacks(context.options)
    if lacks is None:
        context.run_folder.mkdir(parents=True, exist_ok=True)
        unpack(context.options.out / PACKED, context.run_folder)
    for stage in ("generator", "e4e", "encoder", "directions", "editor"):
        reason = lacks or _waits(context, stage)
        if reason is None and left() <= 1:
            reason = "training has used its share of the time"
        # The judges run on the host, for as long as they take.
        needs = 9 * context.options.least if stage == "directions" else 0.0
        yield Step(stage, partial(_stage, context, stage, left), reason, needs)


def _lacks(options: GpuBenchOptions) -> str | None:
    files = {"--faces": options.faces, "--lpips": options.lpips, "--identity": options.identity}
    missing = [option for option, path in files.items() if path is None or not path.exists()]
    return f"needs {' and '.join(missing)}" if missing else None


def _waits(context: Context, stage: str) -> str | None:
    """The first thing that a stage builds on and that is not there yet, in words; None if all is there."""
    name, bundle = context.options.recipe, context.options.from_bundle
    if recipe(name).generator is None and bundle is None:
        return f"needs --from-bundle: {name} trains no generator"
    if recipe(name).generator is None and stage == "generator":
        return f"{name} trains no generator: it is that of --from-bundle"
    for earlier in STAGES[: STAGES.index("editor" if stage == "directions" else stage)]:
        if not _finished(context, earlier):
            return f"the {earlier} is not finished"
    if stage == "directions" and (context.judges.age_gender is None or context.judges.expression is None):
        return "needs --age-gender and --expression"
    fitted = list((context.run_folder / "directions").glob("*.safetensors"))
    if stage == "editor" and not fitted and bundle is None:
        return "there are no directions"
    return None


def _finished(context: Context, stage: str) -> bool:
    return step(context.run_folder, stage) >= _steps(context, stage)


def _steps(context: Context, stage: str) -> int:
    own = recipe(context.options.recipe)
    if stage == "generator" and own.generator is None:
        return 0
    return context.options.steps or getattr(own, f"{stage}_steps")


def _stage(context: Context, stage: str, left: Callable[[], float]) -> Outcome:
    options = context.options
    assert options.faces is not None and options.lpips is not None and options.identity is not None
    chosen = recipe(options.recipe)
    made = Run(
        recipe=chosen,
        root=context.run_folder,
        data=options.faces,
        losses=LossFiles(lpips=options.lpips, identity=options.identity),
        judges=context.judges,
        from_bundle=options.from_bundle,
        device=options.device,
    )
    row: dict[str, Any] = {"recipe": options.recipe}
    if chosen.pairs:
        # They do not travel: a GPU renders them anew in a minute, and those that are there stay.
        render_pairs(made)
    if stage == "directions":
        row["directions"] = [direction.name for direction in fit_directions(made)]
        done = True
    else:
        steps = _steps(context, stage)
        loop = LoopOptions(
            steps=steps,
            minutes=max(left(), 1) / 60,
            checkpoint_every=_CHECKPOINT_EVERY,
            grid_every=_CHECKPOINT_EVERY,
            decay=chosen.decay,
        )
        before = step(context.run_folder, stage)
        reached = before if before >= steps else TRAINED[stage](made, loop)
        row |= {"from_step": before, "to_step": reached, "of_steps": steps, "clocks": context.clocks()}
        done = reached >= steps
    finished = frozenset(stage for stage in STAGES if _finished(context, stage))
    return Outcome(row | {"checkpoints": pack(context.run_folder, options.out / PACKED, finished)}, done)
