"""What `edgedit train` does; imports torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from edgedit.commands.common import console
from edgedit.commands.training import Train
from engines.bundle.provenance import provenance
from engines.cpus import usable
from engines.errors import EdgeditError
from training import parallel
from training import run as stages
from training.card import edit_cells
from training.folder import Run
from training.judges import JudgeFiles
from training.loop import LoopOptions
from training.losses.image import LossFiles
from training.memory import keep_freed_memory
from training.recipes import recipe

_JUDGES = ("age_gender", "expression")
"""Files that only recipes of faces need."""
_NEEDS = {
    "generator": (),
    "pairs": (),
    "e4e": ("lpips", "identity"),
    "encoder": ("lpips", "identity"),
    "directions": ("identity", *_JUDGES),
    "editor": ("lpips", "identity"),
    "calibrate": ("identity", *_JUDGES),
    "evaluate": ("lpips", "identity", *_JUDGES),
}
_BACKBONE = ("e4e", "encoder")
"""Stages whose encoder may start from a backbone."""
_TRAINED: dict[str, Callable[[Run, LoopOptions], int]] = {
    "generator": stages.train_generator,
    "e4e": stages.train_e4e,
    "encoder": stages.train_encoder,
    "editor": stages.train_editor,
}


def run_stage(verb: Train) -> dict[str, Any]:
    """Runs one stage.

    Raises:
        EdgeditError: if a file that the stage needs was not given or is not there.
    """
    chosen = recipe(verb.recipe)
    needs = _NEEDS[verb.stage]
    if verb.stage == "generator" and chosen.joint is not None:
        needs = _NEEDS["e4e"]
    if (verb.even is None) != (verb.labels is None):
        raise EdgeditError("--even names a column of the table that --labels gives: both are needed, or neither")
    if verb.backbone is not None and verb.stage not in _BACKBONE:
        raise EdgeditError(f"stage {verb.stage} starts from no --backbone; {' and '.join(_BACKBONE)} do")
    if not chosen.faces:
        needs = tuple(name for name in needs if name not in _JUDGES)
    given = [name for name in ("labels", "generator", "backbone") if getattr(verb, name)]
    for name in (*needs, "data", *given):
        path: Path | None = getattr(verb, name)
        option = f"--{name.replace('_', '-')}"
        if path is None:
            raise EdgeditError(f"stage {verb.stage} needs {option}; `edgedit train --help` says what each file is")
        if not path.exists():
            raise EdgeditError(f"{option}: there is no {path}")
    try:
        device = parallel.begin(verb.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EdgeditError(f"--device {verb.device} cannot be used: {str(error).splitlines()[0]}") from error
    torch.set_num_threads(min(verb.threads or torch.get_num_threads(), usable()))
    # Values near zero otherwise make CPU arithmetic many times slower.
    torch.set_flush_denormal(True)
    keep_freed_memory()
    if verb.steps is not None and verb.stage in (*_TRAINED, "pairs"):
        length = "pairs" if verb.stage == "pairs" else f"{verb.stage}_steps"
        chosen = dataclasses.replace(chosen, **{length: verb.steps})
    if verb.edited is not None:
        chosen = dataclasses.replace(chosen, edited=verb.edited)
    unused = verb.data
    run = Run(
        recipe=chosen,
        root=verb.run_folder,
        data=verb.data,
        losses=LossFiles(lpips=verb.lpips or unused, identity=verb.identity or unused),
        judges=JudgeFiles(age_gender=verb.age_gender, expression=verb.expression, pose=verb.pose),
        start=verb.start,
        generator=verb.generator,
        backbone=verb.backbone,
        even=(verb.labels, verb.even) if verb.labels and verb.even else None,
        device=device,
    )
    # Of processes that train together the first speaks for all.
    console.quiet = parallel.rank() > 0
    console.print(f"{verb.stage} of recipe {verb.recipe} in {verb.run_folder}", markup=False)
    if verb.stage == "pairs":
        count = stages.render_pairs(run, verb.seed)
        console.print(f"pairs: {count} in {verb.run_folder / 'pairs'}", markup=False)
        return {"stage": "pairs", "pairs": count}
    if verb.stage in _TRAINED:
        options = LoopOptions(
            steps=getattr(chosen, f"{verb.stage}_steps"),
            seed=verb.seed,
            minutes=verb.minutes,
            checkpoint_every=verb.every,
            grid_every=verb.every,
            decay=chosen.decay if verb.decay is None else verb.decay,
            warm_up=chosen.warm_up,
        )
        reached = _TRAINED[verb.stage](run, options)
        console.print(f"{verb.stage}: step {reached} of {options.steps}; log and grids are in {verb.run_folder}")
        return {"stage": verb.stage, "step": reached, "steps": options.steps}
    if verb.stage == "directions":
        directions = stages.fit_directions(run, verb.seed)
        console.print(f"wrote {len(directions)} directions to {verb.run_folder / 'directions'}", markup=False)
        return {"stage": "directions", "directions": [d.name for d in directions]}
    if verb.stage == "calibrate":
        return {"stage": "calibrate", "directions": _show_ranges(stages.calibrate(run))}
    options = " ".join(f"--{name.replace('_', '-')} FILE" for name in (*needs, *(("pose",) if chosen.faces else ())))
    command = f"edgedit train evaluate --data FACES --run RUN --recipe {verb.recipe} {options}"
    result = provenance(command) | stages.evaluate(run)
    _show(result)
    return result


def _show_ranges(ranges: dict[str, Any]) -> dict[str, Any]:
    for name, entry in ranges.items():
        console.print(f"{name}: {entry['min_strength']:g} .. {entry['max_strength']:g}", markup=False)
    return ranges


def _show(result: dict[str, Any]) -> None:
    table = Table("reconstruction", "PSNR (dB)", "LPIPS", "identity")
    for name, row in result["reconstruction"].items():
        table.add_row(name, f"{row['psnr']:.2f}", f"{row['lpips']:.4f}", f"{row['identity']:.3f}")
    console.print(table)
    table = Table("edit", "strength", "change, ours", "identity, ours", "change, linear", "identity, linear")
    for row in result["edits"]:
        cells = edit_cells(row, "+.3f")
        table.add_row(row["direction"], f"{row['strength']:+.2f}", *cells)
    console.print(table)
    console.print(json.dumps(result["targets"], indent=1), markup=False)
