"""A model trains on, stage after stage, from where its newest checkpoint or a bundle ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bench.gpu.checkpoints import STAGES, pack, unpack
from bench.gpu.context import Context
from bench.gpu.queue import Outcome, Step
from training.losses.image import LossFiles
from training.recipes import recipe
from training.running import checkpoint
from training.running.directions import fit_directions
from training.running.folder import Run
from training.running.loop import LoopOptions
from training.running.run import TRAINED, render_pairs

_CHECKPOINT_EVERY = 500
PACKED = "checkpoints"
"""Where they travel, inside the folder of results."""


def training(context: Context) -> Iterator[Step]:
    """A step is a stage. All share the time that training may take; a stage that is not finished goes on next time."""
    begun = context.left()

    def left() -> float:
        """Of the share, and never what the whole run does not have."""
        return min(context.share * context.seconds - (begun - context.left()), context.left())

    lacks = _lacks(context)
    if lacks is None:
        context.run_folder.mkdir(parents=True, exist_ok=True)
        unpack(context.out / PACKED, context.run_folder)
    for stage in ("generator", "e4e", "encoder", "directions", "editor"):
        reason = lacks or _waits(context, stage)
        if reason is None and left() <= 1:
            reason = "training has used its share of the time"
        # The judges run on the host, for as long as they take.
        needs = 9 * context.least if stage == "directions" else 0.0
        yield Step(stage, _stage(context, stage, left), reason, needs)


def _lacks(context: Context) -> str | None:
    given = {"--faces": context.data, "--lpips": context.lpips, "--identity": context.identity}
    missing = [option for option, path in given.items() if path is None or not path.exists()]
    return f"needs {' and '.join(missing)}" if missing else None


def _waits(context: Context, stage: str) -> str | None:
    """What a stage builds on and does not find."""
    if recipe(context.recipe).generator is None and context.from_bundle is None:
        return f"needs --from-bundle: {context.recipe} trains no generator"
    if recipe(context.recipe).generator is None and stage == "generator":
        return f"{context.recipe} trains no generator: it is that of --from-bundle"
    before = STAGES[: STAGES.index("editor" if stage == "directions" else stage)]
    for earlier in before:
        if _reached(context, earlier) < _steps(context, earlier):
            return f"the {earlier} is not finished"
    if stage == "directions" and (context.judges.age_gender is None or context.judges.expression is None):
        return "needs --age-gender and --expression"
    fitted = list((context.run_folder / "directions").glob("*.safetensors"))
    if stage == "editor" and not fitted and context.from_bundle is None:
        return "there are no directions"
    return None


def _reached(context: Context, stage: str) -> int:
    try:
        return int(checkpoint.load(context.run_folder / stage / "checkpoint")[1]["step"])
    except FileNotFoundError:
        return 0


def _steps(context: Context, stage: str) -> int:
    if stage == "generator" and recipe(context.recipe).generator is None:
        return 0
    return context.steps or getattr(recipe(context.recipe), f"{stage}_steps")


def _stage(context: Context, stage: str, left: Callable[[], float]) -> Callable[[], Outcome]:
    def run() -> Outcome:
        assert context.data is not None and context.lpips is not None and context.identity is not None
        chosen = recipe(context.recipe)
        made = Run(
            recipe=chosen,
            root=context.run_folder,
            data=context.data,
            losses=LossFiles(lpips=context.lpips, identity=context.identity),
            judges=context.judges,
            from_bundle=context.from_bundle,
            device=context.device,
        )
        row: dict[str, Any] = {"recipe": context.recipe}
        if chosen.pairs:
            # They do not travel: a GPU renders them anew in a minute, and those that are there stay.
            render_pairs(made)
        if stage == "directions":
            row["directions"] = [direction.name for direction in fit_directions(made)]
            done = True
        else:
            steps = _steps(context, stage)
            options = LoopOptions(
                steps=steps,
                minutes=max(left(), 1) / 60,
                checkpoint_every=_CHECKPOINT_EVERY,
                grid_every=_CHECKPOINT_EVERY,
                decay=chosen.decay,
            )
            before = _reached(context, stage)
            reached = before if before >= steps else TRAINED[stage](made, options)
            row |= {"from_step": before, "to_step": reached, "of_steps": steps, "clocks": context.clocks()}
            done = reached >= steps
        finished = frozenset(s for s in STAGES if _reached(context, s) >= _steps(context, s))
        return Outcome(row | {"checkpoints": pack(context.run_folder, context.out / PACKED, finished)}, done)

    return run
