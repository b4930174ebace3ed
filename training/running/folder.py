"""A run folder, and the networks and directions that a stage takes from it or from files that stand in for a stage.

A run folder holds one folder per stage (`generator`, `e4e`, `encoder`, `directions`, `editor`); a stage finds what it
builds on in its neighbours. An imported generator stands in for the first of them, a bundle for all that are missing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engines.bundle import Bundle
from engines.directions import Direction, load_directions
from engines.family import ModelFamily
from training import imported
from training.data import FaceSet, even_shares, load_faces
from training.losses.identity import Identity
from training.losses.image import LossFiles
from training.losses.lpips import LPIPS
from training.losses.moco import SceneIdentity, load_identity
from training.measuring.judges import JudgeFiles
from training.methods.paper import EditingSystem
from training.networks.editor import FeatureEditor
from training.networks.latents import mean_w
from training.networks.mobilestylegan import MobileGenerator
from training.networks.stylegan2 import Generator
from training.recipes import Recipe
from training.running.weights import load_bundle, load_module
from training.running.weights import load_generator as load_trained_generator
from training.stages.encoder import Encoder
from training.stages.protocol import Stage


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run: its folder, its recipe and the files that it is made from."""

    recipe: Recipe
    root: Path
    data: Path
    losses: LossFiles = field(default_factory=LossFiles)
    judges: JudgeFiles = field(default_factory=JudgeFiles)
    from_bundle: Path | None = None
    """A bundle that stands in for what the run folder does not hold: networks start from its weights in place of random
    ones, and a stage that was not run counts as done with them. What a bundle does not hold, the discriminators,
    starts anew. A stage that has a checkpoint resumes that."""
    generator: Path | None = None
    """An imported generator, which all stages run on, frozen; None: that of stage a, or of `from_bundle`."""
    backbone: Path | None = None
    """An imported ArcFace backbone that the encoder of stage b or c starts from: its trunk, the rest is random."""
    device: str = "cpu"
    even: tuple[Path, str] | None = None
    """A table of labels and the column whose values are drawn evenly (see `training.data.even_shares`)."""

    def faces(self) -> tuple[FaceSet, FaceSet]:
        """Training and held-out photos at the recipe's size."""
        recipe = self.recipe
        training, held_out = load_faces(
            self.data, recipe.photo_shape, held_out=recipe.held_out, cache=self.root / "cache"
        )
        if self.even is not None:
            training = dataclasses.replace(training, shares=even_shares(training.names, *self.even))
        return training, held_out

    def trained(self, stage: str) -> bool:
        """True if a stage's own checkpoint counts: without one, an imported generator or a bundle may stand in."""
        if stage == "generator" and self.generator is not None:
            return False
        return self.from_bundle is None or (self.root / stage / "checkpoint").exists()


def require_generator(given: ModelFamily, wanted: ModelFamily, path: Path) -> None:
    """Refuses an imported generator that is not of the family that is trained.

    Raises:
        ValueError: naming both.
    """
    if (given.generator, given.size, given.style_channels, given.mapping_layers) != (
        wanted.generator,
        wanted.size,
        wanted.style_channels,
        wanted.mapping_layers,
    ):
        raise ValueError(
            f"{path} holds a {given.generator} generator of {given.size} pixels ({given.name}), which is not that of "
            f"the family {wanted.name} ({wanted.generator}, {wanted.size} pixels)"
        )


_STARTED: dict[str, dict[str, tuple[str, str]]] = {
    "generator": {
        "generator": ("generator", "average"),
        "e4e_encoder": ("e4e", "e4e_average"),
        "encoder_encoder": ("encoder", "encoder_average"),
    },
    "e4e": {"encoder": ("e4e", "average")},
    "encoder": {"encoder": ("encoder", "average")},
    "editor": {"editor": ("editor", "average")},
}
"""The modules of each stage that start from a part of a bundle, that part, and the averaged copy that does too."""


def start_from_bundle(run: Run, stage: Stage) -> None:
    """Puts a bundle's networks, if the run has one, into a fresh stage, averaged copies included."""
    if run.from_bundle is None:
        return
    system = load_bundle(run.from_bundle, run.recipe.family)
    encoder = Encoder(run.recipe.family)
    encoder.encoder, encoder.ftem = system.encoder, system.ftem
    parts: dict[str, nn.Module] = {
        "generator": system.generator,
        "e4e": system.e4e,
        "encoder": encoder,
        "editor": system.editor,
    }
    for name, (part, average) in _STARTED[stage.name].items():
        if name in stage.modules:
            stage.modules[name].load_state_dict(parts[part].state_dict())
            stage.modules[average].module.load_state_dict(parts[part].state_dict())


def start_from_backbone(run: Run, *encoders: nn.Module) -> None:
    """Puts an imported backbone, if the run has one, into a fresh encoder and its averaged copy.

    Raises:
        ValueError: if the file is not a backbone, or that of another encoder.
    """
    if run.backbone is not None:
        for encoder in encoders:
            imported.load_backbone(run.backbone, encoder)


def check_backbone(run: Run) -> None:
    """Refuses a backbone that no encoder of the run would start from.

    Raises:
        ValueError: if a backbone is given to encoders that start from none, or from a bundle.
    """
    if run.backbone is not None and run.recipe.family.encoder == "light":
        raise ValueError(
            f"the encoders of the family {run.recipe.family.name} are light ones, which start from no ArcFace "
            "backbone; leave --backbone out"
        )
    if run.backbone is not None and run.from_bundle is not None:
        raise ValueError("--from-bundle and --backbone both say what the encoder starts from; leave one of them out")


def check_own_generator(run: Run) -> None:
    """Refuses to train the generator of a run whose generator is imported.

    Raises:
        ValueError: if the recipe trains none, or an imported one is given.
    """
    if run.recipe.generator is None or run.generator is not None:
        raise ValueError("the generator of this run is imported, not trained; go on with the next stage")


def check_generator(run: Run) -> None:
    """Refuses a run without a generator.

    Raises:
        ValueError: if the recipe runs on an imported generator, and neither that nor a bundle is there.
    """
    recipe = run.recipe
    if recipe.generator is None and run.generator is None and run.trained("generator"):
        raise ValueError(
            f"the recipe for {recipe.family.name} trains no generator: import one "
            f"(`edgedit import weights {recipe.family.generator}`) and name the file with --generator, or name another "
            "recipe with --recipe"
        )


def load_generator(run: Run) -> Generator | MobileGenerator:
    """The generator that was imported, or as stage a left it, averaged; frozen.

    Raises:
        ValueError: if the imported one is of another family, or the recipe needs one and there is none.
        FileNotFoundError: if stage a has not been run.
    """
    family = run.recipe.family
    if run.generator is not None:
        generator, _ = imported.load_generator(run.generator)
        require_generator(generator.family, family, run.generator)
        # Of an imported file nothing but the generator's own sizes is known.
        generator.family = family
        if isinstance(generator, Generator):
            generator.input.to(memory_format=torch.channels_last)
        return generator
    check_generator(run)
    if run.trained("generator"):
        return load_trained_generator(run.root / "generator", family)
    assert run.from_bundle is not None
    return load_bundle(run.from_bundle, family).generator.eval().requires_grad_(False)


def load_losses(run: Run) -> LossFiles:
    """The files of the loss networks, after a look into them.

    Raises:
        ValueError: if they are not of the kinds that the recipe compares pictures with.
    """
    wanted = run.recipe.lpips
    if wanted is not None and (variant := LPIPS(run.losses.require("lpips")).backbone) != wanted:
        raise ValueError(
            f"--lpips: {run.losses.lpips} holds the {variant} variant, and the recipe for {run.recipe.family.name} "
            f"compares with {wanted}"
        )
    load_run_identity(run)
    return run.losses


def load_run_identity(run: Run) -> Identity | SceneIdentity:
    """The identity network, frozen, on the run's device.

    Raises:
        ValueError: if the file is of another kind than the recipe's photos need.
    """
    path, name = run.losses.require("identity"), run.recipe.family.name
    identity = load_identity(path)
    if run.recipe.faces and isinstance(identity, SceneIdentity):
        raise ValueError(f"--identity: {path} holds a ResNet-50; {name} is of faces and needs a face embedder (ONNX)")
    if not run.recipe.faces and isinstance(identity, Identity):
        raise ValueError(
            f"--identity: {path} is a face embedder; {name} is not of faces and needs a ResNet-50, as "
            "`edgedit import weights moco-v2` writes it"
        )
    return identity.to(run.device)


def load_run_directions(run: Run) -> list[Direction]:
    """The directions that a fit or an import put into `directions/`, by name; else those of the bundle that the run
    starts from. Only the rows that the recipe lets them move.

    Raises:
        FileNotFoundError: if there is nothing.
    """
    folder = run.root / "directions"
    files = sorted(folder.glob("*.safetensors"))
    if files:
        directions = [Direction.load(file) for file in files]
    elif run.from_bundle is not None:
        directions = list(load_directions(Bundle.load(run.from_bundle)).values())
    else:
        raise FileNotFoundError(
            f"no directions in {folder}; run `edgedit directions fit` first, or put published ones there with "
            "`edgedit import direction`"
        )
    return [_below_feature(d, run.recipe.family) for d in directions] if run.recipe.below_feature else directions


def _below_feature(direction: Direction, family: ModelFamily) -> Direction:
    """A direction of W or W+ without what it does to the rows above the feature."""
    end = family.feature_conv
    if direction.space == "w":
        first, last = direction.rows or (0, end)
        return dataclasses.replace(direction, rows=(first, min(last, end))) if first < end else direction
    if direction.space == "w+" and direction.vector[:end].any():
        below = np.where(np.arange(len(direction.vector))[:, None] < end, direction.vector, 0)
        return dataclasses.replace(direction, vector=below)
    return direction


def edited_directions(run: Run) -> list[Direction]:
    """The directions that the editor is trained on: those that the recipe names, or all.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if one that the recipe names is not there.
    """
    names, directions = run.recipe.edited, load_run_directions(run)
    if missing := [name for name in names if name not in {d.name for d in directions}]:
        raise ValueError(
            f"{run.root / 'directions'} lacks {', '.join(missing)}, which the editor is to be trained on; put them "
            "there with `edgedit import direction`, or say with --edited which of those there are to be used"
        )
    return [d for d in directions if not names or d.name in names]


def load_system(run: Run, *, encoder: bool = True, editor: bool = True) -> EditingSystem:
    """The trained parts (averaged weights) as one system, in evaluation mode.

    Args:
        encoder: also load stage c, and the generator's upper half as that stage left it.
        editor: also load stage d; without it the editor is a fresh one, which changes nothing.
    """
    family = run.recipe.family
    system = EditingSystem(family) if run.from_bundle is None else load_bundle(run.from_bundle, family)
    if run.generator is not None or run.trained("generator"):
        generator = load_generator(run)
        system.generator = generator
        system.latent_avg.copy_(mean_w(generator))
    if run.trained("e4e"):
        load_module(run.root / "e4e", "e4e", "average.module", system.e4e)
    if encoder and run.trained("encoder"):
        own = Encoder(family)
        meta = load_module(run.root / "encoder", "encoder", "average.module", own)
        system.encoder, system.ftem = own.encoder, own.ftem
        if meta["config"]["options"].get("upper_rate"):
            load_module(run.root / "encoder", "encoder", "generator_average.module", system.generator)
    if not editor:
        system.editor = FeatureEditor(family)
    elif run.trained("editor"):
        load_module(run.root / "editor", "editor", "average.module", system.editor)
    return system.eval().requires_grad_(False)
