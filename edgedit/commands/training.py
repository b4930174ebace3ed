"""`edgedit train STAGE` and `edgedit evaluate`: the training stages and the measurement (need the `train` extra)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.table import Table

from edgedit.commands.common import OptionalBundle, OptionalFile, Reporting, console, needing, say
from edgedit.commands.directions import Judging
from engines.family import DEFAULT_FAMILY


@dataclass(frozen=True, kw_only=True)
class Train(Reporting):
    """Train a model in stages: generator, e4e, encoder, and, once directions are fitted, editor. Each stage resumes."""

    stage: tyro.conf.Positional[Literal["generator", "pairs", "e4e", "encoder", "editor"]]
    """The stage to run. Stages build on those before them; `edgedit directions fit` comes before the editor; `pairs`
    renders what a light family's stages learn from."""
    faces: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """Folder or tar of square, FFHQ-aligned faces; for cars, of photos of which the middle 4:3 is taken."""
    run_folder: Annotated[Path, tyro.conf.arg(name="run", metavar="RUN")]
    """Folder of the run; one folder per stage is made in it."""
    recipe: str = DEFAULT_FAMILY.name
    """Settings of all stages; see `training.recipes`."""
    lpips: OptionalFile = None
    """LPIPS weights (safetensors, AlexNet or VGG16): needed by e4e, encoder, editor."""
    identity: OptionalFile = None
    """Face embedder (ONNX, 112x112), or for cars MoCo v2's ResNet-50 (`edgedit import weights moco-v2`): needed by
    e4e, encoder, editor."""
    generator: OptionalFile = None
    """An imported generator (`edgedit import weights stylegan2` or `mobilestylegan`) that every stage runs on, frozen,
    in place of one trained here."""
    backbone: OptionalFile = None
    """An imported ArcFace backbone that the stage's encoder starts from: for e4e of kind ir-se-50, for encoder of kind
    iresnet-50 (`edgedit import weights`)."""
    from_bundle: OptionalBundle = None
    """A bundle that stands in for what the run folder lacks: stages start from its networks, and those that were not
    run count as done; a stage with a checkpoint resumes that."""
    labels: OptionalFile = None
    """Table (CSV) of the photos' labels with a column `file`, for --even."""
    even: Annotated[str | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Column of --labels whose values are drawn evenly, so that rare ones (old faces, say) are learnt as well."""
    edited: Annotated[
        tuple[str, ...] | None, tyro.conf.arg(metavar="NAME [NAME ...]", help_behavior_hint="(default: the recipe's)")
    ] = None
    """Directions of the run that the editor is trained on."""
    steps: Annotated[int | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Optimizer steps in all, in place of the recipe's."""
    minutes: Annotated[float, tyro.conf.arg(help_behavior_hint="(default: no limit)")] = math.inf
    """Stop after this long, with a checkpoint."""
    decay: Annotated[float | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Share of the steps, the last ones, over which learning rates fall to a tenth, in place of the recipe's."""
    seed: int = 0
    """Seed of weights, batches and every draw."""
    device: str = "cpu"
    """torch device."""
    threads: int = 0
    """torch threads of each process, never more than it may use by its affinity and its control group's quota; 0 leaves
    it to torch, within that."""
    processes: int = 1
    """Processes that train together: one per GPU, or on a CPU one per core with --threads 1. The recipe's batch is what
    each of them takes in a step."""
    every: int = 200
    """Steps between two checkpoints, with a sample grid each."""

    def run(self) -> dict[str, Any]:
        with needing("edgedit train", "train"):
            from training.running.api import train
        options = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "json"}
        return train(options.pop("stage"), run=options.pop("run_folder"), progress=say, **options)


@dataclass(frozen=True, kw_only=True)
class Evaluate(Judging):
    """Measure a trained run on the photos that no stage has seen: reconstructions and edits (needs the `train` extra).

    What was measured is kept in the run's folder, so that a measurement that was stopped goes on.
    """

    lpips: OptionalFile = None
    """LPIPS weights (safetensors, AlexNet or VGG16); needed."""

    def run(self) -> dict[str, Any]:
        with needing("edgedit evaluate", "train"):
            from training.measuring.card import edit_cells
            from training.running.api import evaluate
        result = evaluate(**self.options("lpips", "age_gender", "expression", "pose"))
        table = Table("reconstruction", "PSNR (dB)", "LPIPS", "identity")
        for name, row in result["reconstruction"].items():
            table.add_row(name, f"{row['psnr']:.2f}", f"{row['lpips']:.4f}", f"{row['identity']:.3f}")
        console.print(table)
        table = Table("edit", "strength", "change, ours", "identity, ours", "change, linear", "identity, linear")
        for row in result["edits"]:
            table.add_row(row["direction"], f"{row['strength']:+.2f}", *edit_cells(row, "+.3f"))
        console.print(table)
        say(json.dumps(result["targets"], indent=1))
        return result
