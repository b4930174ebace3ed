"""Training from plain arguments: a stage, the fit and the calibration of directions, and the measurement.

What `edgedit train`, `edgedit directions fit`, `edgedit directions calibrate` and `edgedit evaluate` do, and what
`edgedit.train`, `edgedit.fit_directions`, `edgedit.calibrate_directions` and `edgedit.evaluate` are.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from engines.bundle.provenance import option, provenance
from engines.directions import Direction
from engines.errors import EdgeditError
from engines.family import DEFAULT_FAMILY
from engines.packages import Progress
from training import parallel
from training.losses.image import LossFiles
from training.recipes import recipe as find_recipe
from training.running import directions, evaluation
from training.running.folder import Run, check_generator, check_own_generator
from training.running.loop import LoopOptions
from training.running.opening import JUDGES, LOSSES, begin, check_files, paths, trained_run
from training.running.run import TRAINED, render_pairs

Stage = Literal["generator", "pairs", "e4e", "encoder", "editor"]
"""Stages that `train` runs, in their order; directions are fitted before the editor."""

BACKBONE = ("e4e", "encoder")
"""Stages whose encoder may start from a backbone."""


def train(
    stage: Stage,
    *,
    run: str | Path,
    faces: str | Path,
    recipe: str = DEFAULT_FAMILY.name,
    lpips: str | Path | None = None,
    identity: str | Path | None = None,
    generator: str | Path | None = None,
    backbone: str | Path | None = None,
    from_bundle: str | Path | None = None,
    labels: str | Path | None = None,
    even: str | None = None,
    edited: Sequence[str] | None = None,
    steps: int | None = None,
    minutes: float = math.inf,
    decay: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 0,
    processes: int = 1,
    every: int = 200,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Runs one stage of training; one that was stopped goes on from its checkpoint.

    Args:
        stage: one of `Stage`; each builds on those before it.
        run: folder of the run; one folder per stage is made in it.
        faces: folder or tar of square, FFHQ-aligned faces; for cars, of photos of which the middle 4:3 is taken.
        recipe: settings of all stages, see `training.recipes`.
        lpips: LPIPS weights (safetensors, AlexNet or VGG16), for e4e, encoder and editor.
        identity: face embedder (ONNX, 112x112), or for cars MoCo v2's ResNet-50, for the same.
        generator: an imported generator that every stage runs on, frozen, in place of one trained here.
        backbone: an imported ArcFace backbone that the encoder of stage e4e or encoder starts from.
        from_bundle: a bundle that stands in for what the run's folder lacks.
        labels: table (CSV) of the photos' labels with a column `file`, for `even`.
        even: column of `labels` whose values are drawn evenly.
        edited: directions of the run that the editor is trained on; None: the recipe's.
        steps: optimizer steps in all (for pairs, their number); None: the recipe's.
        minutes: stop after this long, with a checkpoint.
        decay: share of the steps, the last ones, over which learning rates fall to a tenth; None: the recipe's.
        seed: of weights, batches and every draw.
        device: torch device.
        threads: torch threads of each process, never more than it may use; 0 leaves it to torch.
        processes: how many train together: one per GPU, or on a CPU one per core with one thread each.
        every: steps between two checkpoints, with a sample grid each.
        progress: called with one line per step of the work.

    Returns:
        The stage, and the step it reached of how many, or the number of pairs.

    Raises:
        EdgeditError: if a file that the stage needs was not given or is not there, or an option does not go with it.
        ValueError, FileNotFoundError: if the recipe, the photos or an earlier stage will not do.
        FloatingPointError: if the losses stop being finite.
        ChildProcessError: if another process failed.

    Example:
        >>> edgedit.train("e4e", run="run", faces="faces", lpips="lpips.safetensors", identity="embedder.onnx")
    """
    if processes < 1:
        raise EdgeditError(f"--processes must be 1 or more, got {processes}")
    task = {name: value for name, value in locals().items() if name not in ("processes", "progress")}
    work = functools.partial(_train, progress=progress)
    # The other processes say nothing: the first speaks for all.
    return work(task) if processes == 1 else parallel.together(_train, task, processes, work)


def _train(task: dict[str, Any], progress: Progress = lambda line: None) -> dict[str, Any]:
    """`train` in this process, with its arguments as they are pickled."""
    stage, root, seed = task["stage"], Path(task["run"]), task["seed"]
    if stage not in get_args(Stage):
        raise EdgeditError(f"unknown stage {stage!r}; there are {', '.join(get_args(Stage))}")
    chosen, labels, even = find_recipe(task["recipe"]), task["labels"], task["even"]
    needs = LOSSES if stage in ("e4e", "encoder", "editor") else ()
    if stage == "generator" and chosen.joint is not None:
        needs = LOSSES
    if (even is None) != (labels is None):
        raise EdgeditError("--even names a column of the table that --labels gives: both are needed, or neither")
    if task["backbone"] is not None and stage not in BACKBONE:
        raise EdgeditError(f"stage {stage} starts from no --backbone; {' and '.join(BACKBONE)} do")
    files = paths(**{name: task[name] for name in (*LOSSES, "faces", "labels", "generator", "backbone", "from_bundle")})
    used = {name: file for name, file in files.items() if name not in (*LOSSES, "from_bundle") or name in needs}
    check_files(f"stage {stage}", "train", used, (*needs, "faces"))
    device = begin(task["device"], task["threads"])
    if task["steps"] is not None:
        length = "pairs" if stage == "pairs" else f"{stage}_steps"
        chosen = dataclasses.replace(chosen, **{length: task["steps"]})
    if task["edited"] is not None:
        chosen = dataclasses.replace(chosen, edited=tuple(task["edited"]))
    made = Run(
        recipe=chosen,
        root=root,
        data=Path(task["faces"]),
        losses=LossFiles(lpips=files["lpips"], identity=files["identity"]),
        from_bundle=files["from_bundle"],
        generator=files["generator"],
        backbone=files["backbone"],
        even=(files["labels"], even) if files["labels"] is not None and even is not None else None,
        device=device,
    )
    (check_own_generator if stage == "generator" else check_generator)(made)
    progress(f"{stage} of recipe {task['recipe']} in {root}")
    if stage == "pairs":
        count = render_pairs(made, seed)
        progress(f"pairs: {count} in {root / 'pairs'}")
        return {"stage": "pairs", "pairs": count}
    options = LoopOptions(
        steps=getattr(chosen, f"{stage}_steps"),
        seed=seed,
        minutes=task["minutes"],
        checkpoint_every=task["every"],
        grid_every=task["every"],
        decay=chosen.decay if task["decay"] is None else task["decay"],
        warm_up=chosen.warm_up,
    )
    reached = TRAINED[stage](made, options)
    progress(f"{stage}: step {reached} of {options.steps}; log and grids are in {root}")
    return {"stage": stage, "step": reached, "steps": options.steps}


def fit_directions(
    run: str | Path,
    faces: str | Path,
    *,
    recipe: str = DEFAULT_FAMILY.name,
    identity: str | Path | None = None,
    age_gender: str | Path | None = None,
    expression: str | Path | None = None,
    pose: str | Path | None = None,
    generator: str | Path | None = None,
    from_bundle: str | Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 0,
    progress: Progress = lambda line: None,
) -> list[Direction]:
    """Fits the recipe's directions to what the judges say of the run's generator, and writes them to `directions/`.

    Args:
        run: the run, with what its stages left.
        faces: as of `train`; some recipes fit on the codes of photos.
        recipe: the recipe of the run.
        identity: face embedder (ONNX); needed.
        age_gender, expression: judges (ONNX); needed for faces.
        pose: judge of head pose (ONNX).
        generator, from_bundle, seed, device, threads, progress: as of `train`.

    Raises:
        EdgeditError, ValueError, FileNotFoundError: as `train`.

    Example:
        >>> edgedit.fit_directions("run", "faces", identity="embedder.onnx", age_gender="age.onnx",
        ...     expression="expression.onnx")
    """
    files = dict(faces=faces, identity=identity, age_gender=age_gender, expression=expression, pose=pose)
    files |= dict(generator=generator, from_bundle=from_bundle)
    needs = ("identity", *JUDGES)
    made, _ = trained_run("fitting directions", "directions fit", needs, run, recipe, device, threads, **files)
    progress(f"directions of recipe {recipe} in {run}")
    fitted = directions.fit_directions(made, seed)
    progress(f"wrote {len(fitted)} directions to {made.root / 'directions'}")
    return fitted


def calibrate_directions(
    run: str | Path,
    faces: str | Path,
    *,
    recipe: str = DEFAULT_FAMILY.name,
    identity: str | Path | None = None,
    generator: str | Path | None = None,
    from_bundle: str | Path | None = None,
    device: str = "cpu",
    threads: int = 0,
    progress: Progress = lambda line: None,
) -> dict[str, dict[str, float]]:
    """Sets the range of every direction of a run to the strengths at which edited training photos keep their identity.

    Args:
        run: the run, all its stages done.
        faces, recipe, identity, generator, from_bundle, device, threads, progress: as of `fit_directions`.

    Returns:
        By direction, the range that was written.

    Raises:
        EdgeditError, ValueError, FileNotFoundError: as `train`.

    Example:
        >>> edgedit.calibrate_directions("run", "faces", identity="embedder.onnx")
    """
    files = dict(faces=faces, identity=identity, generator=generator, from_bundle=from_bundle)
    what = "calibrating directions"
    made, _ = trained_run(what, "directions calibrate", ("identity",), run, recipe, device, threads, **files)
    progress(f"ranges of recipe {recipe} in {run}")
    return directions.calibrate(made)


def evaluate(
    run: str | Path,
    faces: str | Path,
    *,
    recipe: str = DEFAULT_FAMILY.name,
    lpips: str | Path | None = None,
    identity: str | Path | None = None,
    age_gender: str | Path | None = None,
    expression: str | Path | None = None,
    pose: str | Path | None = None,
    generator: str | Path | None = None,
    from_bundle: str | Path | None = None,
    device: str = "cpu",
    threads: int = 0,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Measures a trained run on the photos that no stage has seen: reconstructions and edits.

    Args:
        run: the run, all its stages done.
        faces: the photos that it was trained on and the held-out ones, as of `train`.
        recipe: the recipe of the run.
        lpips, identity: networks that compare pictures, as of `train`; needed.
        age_gender, expression, pose: as of `fit_directions`.
        generator, from_bundle, device, threads, progress: as of `train`.

    Returns:
        What `training.running.evaluation.evaluate` gives, with the command, the date, the machine and the versions.

    Raises:
        EdgeditError, ValueError, FileNotFoundError: as `train`.

    Example:
        >>> figures = edgedit.evaluate("run", "faces", lpips="lpips.safetensors", identity="embedder.onnx",
        ...     age_gender="age.onnx", expression="expression.onnx")
    """
    files = dict(faces=faces, lpips=lpips, identity=identity, age_gender=age_gender, expression=expression, pose=pose)
    files |= dict(generator=generator, from_bundle=from_bundle)
    needs = (*LOSSES, *JUDGES)
    made, wanted = trained_run("measuring", "evaluate", needs, run, recipe, device, threads, **files)
    progress(f"measuring recipe {recipe} in {run}")
    options = " ".join(f"{option(name)} FILE" for name in (*wanted, *(("pose",) if made.recipe.faces else ())))
    command = f"edgedit evaluate --faces FACES --run RUN --recipe {recipe} {options}"
    return provenance(command) | evaluation.evaluate(made)
