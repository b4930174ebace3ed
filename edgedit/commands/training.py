"""`edgedit train STAGE`: the training stages, the direction fit and the measurement (needs the `train` extra)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from edgedit.commands.common import OptionalFile, Reporting
from engines.errors import EdgeditError


@dataclass(frozen=True, kw_only=True)
class Train(Reporting):
    """Train a model in stages: generator, e4e, encoder, directions, editor; then evaluate it. Each stage resumes."""

    stage: tyro.conf.Positional[
        Literal["generator", "pairs", "e4e", "encoder", "directions", "editor", "calibrate", "evaluate"]
    ]
    """What to run. Stages build on those before them; `calibrate` sets the directions' ranges on training photos,
    `evaluate` measures on the held-out ones; `pairs` renders what a light family's stages learn from."""
    data: Path
    """Folder or tar of square, FFHQ-aligned faces; for cars, of photos of which the middle 4:3 is taken."""
    run_folder: Annotated[Path, tyro.conf.arg(name="run")]
    """Folder of the run; one folder per stage is made in it."""
    recipe: str = "demo-64"
    """Settings of all stages; see `training.recipes`."""
    lpips: OptionalFile = None
    """LPIPS weights (safetensors, AlexNet or VGG16): needed by e4e, encoder, editor, evaluate."""
    identity: OptionalFile = None
    """Face embedder (ONNX, 112x112), or for cars MoCo v2's ResNet-50 (`edgedit import moco-v2`): needed by all but the
    generator."""
    age_gender: OptionalFile = None
    """Judge of age and gender (ONNX): for directions and evaluate, of faces."""
    expression: OptionalFile = None
    """Judge of expression (ONNX): for directions and evaluate, of faces."""
    pose: OptionalFile = None
    """Judge of head pose (ONNX): for directions and evaluate."""
    generator: OptionalFile = None
    """An imported generator (`edgedit import stylegan2` or `mobilestylegan`) that every stage runs on, frozen, in place
    of one trained here."""
    backbone: OptionalFile = None
    """An imported ArcFace backbone that the stage's encoder starts from: for e4e of kind ir-se-50, for encoder of kind
    iresnet-50 (`edgedit import`)."""
    start: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="")] = None
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
        try:
            from edgedit.commands.stages import run_stage
        except ModuleNotFoundError as error:
            raise EdgeditError(f"`edgedit train` needs {error.name}: pip install 'edgedit[train]'") from error
        if self.processes < 1:
            raise EdgeditError(f"--processes must be 1 or more, got {self.processes}")
        if self.processes == 1 or self.stage in ("directions", "calibrate", "evaluate"):
            return run_stage(self)
        from training.parallel import together

        return together(run_stage, self, self.processes)
