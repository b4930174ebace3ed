"""The stages assembled: each function runs one stage of a recipe inside a run folder.

A run folder holds one folder per stage (`generator`, `e4e`, `encoder`, `directions`, `editor`); a stage finds what it
builds on in its neighbours.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engines.bundle import Bundle
from engines.directions import Direction, load_directions
from engines.family import ModelFamily
from engines.files import write
from training import imported
from training.data import FaceSet, even_shares, load_faces
from training.directions import fit, photo_codes
from training.evaluate import TARGETS, Evaluator, photo_range
from training.judges import JudgeFiles, Judges
from training.loop import LoopOptions, Stage, train
from training.losses.identity import Identity
from training.losses.image import LossFiles
from training.losses.lpips import LPIPS
from training.networks.discriminator import Discriminator
from training.networks.editor import FeatureEditor
from training.networks.mobilestylegan import MobileGenerator
from training.networks.stylegan2 import Generator
from training.networks.system import EditingSystem
from training.pairs import load_pairs, render
from training.recipes import Recipe
from training.stages.e4e import E4EStage
from training.stages.editor import EditorStage
from training.stages.encoder import Encoder, EncoderStage
from training.stages.gan import GanStage
from training.stages.joint import JointStage
from training.stages.light_e4e import LightE4EOptions, LightE4EStage
from training.stages.light_editor import LightEditorOptions, LightEditorStage
from training.stages.light_encoder import LightEncoderOptions, LightEncoderStage
from training.weights import load_bundle, load_discriminator, load_generator, load_module, mean_w

STAGES = ("generator", "pairs", "e4e", "encoder", "directions", "editor")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a training run lives and what it is made from."""

    recipe: Recipe
    root: Path
    data: Path
    losses: LossFiles
    judges: JudgeFiles
    start: Path | None = None
    """A bundle that stands in for what the run folder does not hold: networks start from its weights in place of random
    ones, and a stage that was not run counts as done with them. What a bundle does not hold, the discriminators,
    starts anew. A stage that has a checkpoint resumes that."""
    generator: Path | None = None
    """An imported generator, which all stages run on, frozen; None: that of stage a, or of `start`."""
    device: str = "cpu"
    even: tuple[Path, str] | None = None
    """A table of labels and the column whose values are drawn evenly (see `training.data.even_shares`)."""

    def faces(self) -> tuple[FaceSet, FaceSet]:
        """Training and held-out photos at the recipe's size."""
        training, held_out = load_faces(
            self.data,
            self.recipe.photo_size or self.recipe.family.size,
            held_out=self.recipe.held_out,
            cache=self.root / "cache",
        )
        if self.even is not None:
            training = dataclasses.replace(training, shares=even_shares(training.names, *self.even))
        return training, held_out


def require_generator(found: ModelFamily, wanted: ModelFamily, path: Path) -> None:
    """Refuses an imported generator that is not of the family that is trained.

    Raises:
        ValueError: naming both.
    """
    if (found.generator, found.size, found.style_channels, found.mapping_layers) != (
        wanted.generator,
        wanted.size,
        wanted.style_channels,
        wanted.mapping_layers,
    ):
        raise ValueError(
            f"{path} holds a {found.generator} generator of {found.size} pixels ({found.name}), which is not that of "
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
"""By stage: which of its modules start from which part of a bundle, and the averaged copy that does too."""


def _start(run: Run, stage: Stage) -> None:
    """Puts a bundle's networks into a fresh stage, averaged copies included."""
    if run.start is None:
        return
    system = load_bundle(run.start, run.recipe.family)
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


def _trained(run: Run, stage: str) -> bool:
    """Whether a stage's own checkpoint counts; without one a bundle to start from stands in."""
    return run.start is None or (run.root / stage / "checkpoint").exists()


def _generator(run: Run) -> Generator | MobileGenerator:
    """The generator that was imported, or as stage a left it, averaged; frozen."""
    if run.generator is not None:
        generator, _ = imported.load_generator(run.generator)
        require_generator(generator.family, run.recipe.family, run.generator)
        return generator
    if _trained(run, "generator"):
        return load_generator(run.root / "generator", run.recipe.family)
    assert run.start is not None
    return load_bundle(run.start, run.recipe.family).generator.eval().requires_grad_(False)


def train_generator(run: Run, options: LoopOptions) -> int:
    """Stage a."""
    recipe, faces = run.recipe, run.faces()[0]
    stage: Stage
    if recipe.family.generator != "stylegan2" or run.generator is not None:
        raise ValueError("the generator of this run is imported, not trained; go on with the next stage")
    if recipe.joint is None:
        stage = GanStage(recipe.family, faces, recipe.generator, seed=options.seed, device=run.device)
    else:
        stage = JointStage(
            recipe.family, faces, run.losses, recipe.generator, recipe.joint, seed=options.seed, device=run.device
        )
    _start(run, stage)
    return train(stage, run.root / "generator", options)


def render_pairs(run: Run, seed: int = 0) -> int:
    """Renders the synthetic pairs that light stages draw from, into `pairs/`; returns their number."""
    if not run.recipe.pairs:
        raise ValueError("this recipe uses no synthetic pairs")
    generator = _generator(run)
    assert isinstance(generator, MobileGenerator), "only light recipes have pairs"
    render(generator, run.root / "pairs", run.recipe.pairs, seed=seed, device=run.device)
    return run.recipe.pairs


def train_e4e(run: Run, options: LoopOptions) -> int:
    """Stage b, on the generator of stage a, and from the encoder that was trained beside it if there is one."""
    family, settings = run.recipe.family, run.recipe.e4e
    if isinstance(settings, LightE4EOptions):
        light = LightE4EStage(
            family,
            _generator(run),
            run.faces()[0],
            load_pairs(run.root / "pairs"),
            run.losses,
            settings,
            seed=options.seed,
            device=run.device,
        )
        _start(run, light)
        return train(light, run.root / "e4e", options)
    stage = E4EStage(
        family, _generator(run), run.faces()[0], run.losses, settings, seed=options.seed, device=run.device
    )
    if not _trained(run, "generator"):
        _start(run, stage)
    elif run.recipe.joint is not None:
        for name in ("encoder", "latent", "average"):
            load_module(run.root / "generator", "generator", f"e4e_{name}", stage.modules[name])
    return train(stage, run.root / "e4e", options)


def train_encoder(run: Run, options: LoopOptions) -> int:
    """Stage c, on the networks of stage a, and from the encoder that was trained beside them if there is one."""
    family, source, settings = run.recipe.family, run.root / "generator", run.recipe.encoder
    if isinstance(settings, LightEncoderOptions):
        light = LightEncoderStage(
            family,
            _generator(run),
            run.faces()[0],
            load_pairs(run.root / "pairs"),
            run.losses,
            settings,
            seed=options.seed,
            device=run.device,
        )
        _start(run, light)
        return train(light, run.root / "encoder", options)
    if _trained(run, "generator"):
        discriminator = load_discriminator(source, family)
    else:
        # A bundle holds no discriminator, and one that starts anew has nothing to say in a short run.
        discriminator = Discriminator(family)
        settings = dataclasses.replace(settings, adversarial_from=options.steps)
    stage = EncoderStage(
        family,
        _generator(run),
        discriminator,
        run.faces()[0],
        run.losses,
        settings,
        seed=options.seed,
        device=run.device,
    )
    if not _trained(run, "generator"):
        _start(run, stage)
    elif run.recipe.joint is not None and run.recipe.joint.encoder is not None:
        for name in ("encoder", "average"):
            load_module(source, "generator", f"encoder_{name}", stage.modules[name])
    return train(stage, run.root / "encoder", options)


def fit_directions(run: Run, seed: int = 0) -> list[Direction]:
    """Directions of the trained generator, written to `directions/` with what they do to each attribute."""
    system = load_system(run, encoder=False, editor=False).to(run.device)
    generator = system.generator
    identity = Identity(run.losses.identity).to(run.device).eval()
    judges, options = Judges(run.judges), run.recipe.directions
    samples = None
    if options.photos:
        samples = photo_codes(system.e4e, generator, system.latent_avg, run.faces()[0], judges, options, seed=seed)
    directions, effects = fit(generator, judges, identity, options, seed=seed, samples=samples)
    folder = run.root / "directions"
    folder.mkdir(parents=True, exist_ok=True)
    for direction in directions:
        direction.save(folder / f"{direction.name}.safetensors")
    write(folder / "effects.json", json.dumps(effects, indent=1).encode())
    return directions


def load_run_directions(run: Run) -> list[Direction]:
    """What `fit_directions` wrote, by name; else those of the bundle that the run starts from.

    Raises:
        FileNotFoundError: if there is nothing.
    """
    files = sorted((run.root / "directions").glob("*.safetensors"))
    if not files and run.start is not None:
        return list(load_directions(Bundle.load(run.start)).values())
    if not files:
        raise FileNotFoundError(f"no directions in {run.root / 'directions'}; run `edgedit train directions` first")
    return [Direction.load(file) for file in files]


def load_system(run: Run, *, encoder: bool = True, editor: bool = True) -> EditingSystem:
    """The trained parts (averaged weights) as one system, in evaluation mode.

    Args:
        encoder: also load stage c, and the generator's upper half as that stage left it.
        editor: also load stage d; without it the editor is a fresh one, which changes nothing.
    """
    family = run.recipe.family
    system = EditingSystem(family) if run.start is None else load_bundle(run.start, family)
    if run.generator is not None:
        generator = _generator(run)
        system.generator = generator
        system.latent_avg.copy_(mean_w(generator))
    elif _trained(run, "generator"):
        system.generator = load_generator(run.root / "generator", family)
        system.latent_avg.copy_(mean_w(system.generator))
    if _trained(run, "e4e"):
        load_module(run.root / "e4e", "e4e", "average.module", system.e4e)
    if encoder and _trained(run, "encoder"):
        own = Encoder(family)
        meta = load_module(run.root / "encoder", "encoder", "average.module", own)
        system.encoder, system.ftem = own.encoder, own.ftem
        if meta["config"]["options"].get("upper_rate"):
            load_module(run.root / "encoder", "encoder", "generator_average.module", system.generator)
    if not editor:
        system.editor = FeatureEditor(family)
    elif _trained(run, "editor"):
        load_module(run.root / "editor", "editor", "average.module", system.editor)
    return system.eval().requires_grad_(False)


def train_editor(run: Run, options: LoopOptions) -> int:
    """Stage d, on everything before it."""
    names = run.recipe.edited
    directions = [d for d in load_run_directions(run) if not names or d.name in names]
    with torch.no_grad():
        system = load_system(run, editor=False)
    settings = run.recipe.editor
    stage: Stage
    if isinstance(settings, LightEditorOptions):
        stage = LightEditorStage(
            system,
            run.faces()[0],
            load_pairs(run.root / "pairs"),
            directions,
            run.losses,
            settings,
            seed=options.seed,
            device=run.device,
        )
    else:
        stage = EditorStage(
            system, run.faces()[0], directions, run.losses, settings, seed=options.seed, device=run.device
        )
    _start(run, stage)
    return train(stage, run.root / "editor", options)


@torch.no_grad()
def calibrate(run: Run, photos: int = 64) -> dict[str, dict[str, float]]:
    """Sets the range of every direction to the strengths at which edited training photos keep their identity.

    What `fit` found before the editor was trained says how far samples can go; photos go less far, or farther.

    Args:
        photos: how many are edited, spread over the training set: file names may be in order of age.

    Returns:
        By direction, the range that was written.
    """
    system = load_system(run)
    faces = run.faces()[0]
    (run.root / "directions").mkdir(parents=True, exist_ok=True)
    images = faces.tensor(np.linspace(0, len(faces) - 1, photos).astype(int), run.device)
    identity = Identity(run.losses.identity).to(run.device).eval()
    ranges = {}
    for direction in load_run_directions(run):
        low, high = photo_range(system, images, identity, direction, limit=run.recipe.directions.limit)
        ranges[direction.name] = {"min_strength": low, "max_strength": high}
        measured = dataclasses.replace(direction, **ranges[direction.name])
        measured.save(run.root / "directions" / f"{direction.name}.safetensors")
    return ranges


@torch.no_grad()
def evaluate(run: Run) -> dict[str, Any]:
    """What the trained system reaches on the held-out photos, with the weights as a bundle stores them (FP16)."""
    system = load_system(run)
    for tensor in (*system.parameters(), *system.buffers()):
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    held_out = run.faces()[1]
    identity = Identity(run.losses.identity).eval()
    evaluator = Evaluator(
        system, held_out, LPIPS(run.losses.lpips).eval(), identity, Judges(run.judges), device=run.device
    )
    directions = {d.name: d for d in load_run_directions(run)}
    edits = []
    for name in (n for n in Judges(run.judges).names if n in directions):
        for strength in (directions[name].max_strength, directions[name].min_strength):
            edits.append(evaluator.edit(directions[name], strength, name))
    reconstruction = evaluator.reconstruction()
    return {
        "photos": len(held_out),
        "first": held_out.names[0],
        "last": held_out.names[-1],
        "size": run.recipe.family.size,
        "reconstruction": reconstruction,
        "edits": edits,
        "targets": _targets(reconstruction["ours"], edits),
    }


def _targets(reached: dict[str, float], edits: list[dict[str, Any]]) -> dict[str, Any]:
    """Each target beside what was reached, and whether it is met."""
    result: dict[str, Any] = {}
    for name, (target, better) in TARGETS["reconstruction"].items():
        met = reached[name] >= target if better == "higher" else reached[name] <= target
        result[name] = {"reached": reached[name], "target": target, "met": met}
    for edit in edits:
        target = TARGETS["edits"].get(edit["attribute"])
        if target is not None:
            change, kept = edit["ours"]["change"], edit["ours"]["identity"]
            asked = change if edit["strength"] > 0 else -change
            result[f"{edit['direction']} {edit['strength']:+g}"] = {
                "change": change,
                "identity": kept,
                "target": target,
                "met": asked >= target["change"] and kept >= target["identity"],
            }
    return result
