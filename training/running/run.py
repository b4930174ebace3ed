"""The stages assembled: each function runs one stage of a recipe inside a run folder.

What a stage builds on is in `training.running.folder`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from engines.directions import Direction
from engines.store import write
from training.data import FaceSet
from training.losses.lpips import LPIPS
from training.measuring.evaluate import Evaluator, compare_targets, photo_range
from training.measuring.judges import Judges
from training.measuring.sheet import direction_sheet
from training.networks.discriminator import Discriminator
from training.networks.light import LightE4EEncoder
from training.networks.mobilestylegan import MobileGenerator
from training.running.folder import (
    Run,
    check_backbone,
    check_own_generator,
    edited_directions,
    load_generator,
    load_losses,
    load_run_directions,
    load_run_identity,
    load_system,
    start_from_backbone,
    start_from_bundle,
)
from training.running.loop import LoopOptions, train
from training.running.weights import load_discriminator, load_module
from training.stages.directions import fit, pair_codes, photo_codes
from training.stages.e4e import E4EStage
from training.stages.editor import EditorStage
from training.stages.encoder import EncoderStage
from training.stages.gan import GanStage
from training.stages.joint import JointStage
from training.stages.light_e4e import LightE4EOptions, LightE4EStage
from training.stages.light_editor import LightEditorOptions, LightEditorStage
from training.stages.light_encoder import LightEncoderOptions, LightEncoderStage
from training.stages.pairs import PairSet, load_pairs, render
from training.stages.protocol import Stage

STAGES = ("generator", "pairs", "e4e", "encoder", "directions", "editor")


def train_generator(run: Run, options: LoopOptions) -> int:
    """Trains the generator (stage a), with the encoders beside it where the recipe has a joint stage.

    Args:
        run: the run; the stage's own folder in it is `generator/`.
        options: how long, and how often it reports.

    Returns:
        The step reached.

    Raises:
        ValueError: if the run's generator is imported.
    """
    recipe = run.recipe
    stage: Stage
    check_own_generator(run)
    assert recipe.generator is not None
    faces = run.faces()[0]
    if recipe.joint is None:
        stage = GanStage(recipe.family, faces, recipe.generator, seed=options.seed, device=run.device)
    else:
        stage = JointStage(
            recipe.family, faces, load_losses(run), recipe.generator, recipe.joint, seed=options.seed, device=run.device
        )
    start_from_bundle(run, stage)
    return train(stage, run.root / "generator", options)


def load_mobile(run: Run) -> MobileGenerator:
    """The generator of a light recipe's run.

    Raises:
        ValueError: if the recipe's generator is another.
    """
    generator = load_generator(run)
    if not isinstance(generator, MobileGenerator):
        raise ValueError(f"light stages and pairs are of MobileStyleGAN, not of {run.recipe.family.generator}")
    return generator


def render_pairs(run: Run, seed: int = 0) -> int:
    """Renders the synthetic pairs that light stages draw from into the run's folder `pairs/`.

    Returns:
        The number of pairs, as the recipe has it.

    Raises:
        ValueError: if the recipe uses none.
    """
    if not run.recipe.pairs or run.recipe.family.generator != "mobilestylegan":
        raise ValueError("this recipe uses no synthetic pairs")
    render(load_mobile(run), run.root / "pairs", run.recipe.pairs, seed=seed, device=run.device)
    return run.recipe.pairs


def _light_material(run: Run) -> tuple[MobileGenerator, FaceSet, PairSet]:
    """The generator, the training photos and the synthetic pairs that light encoders learn from."""
    return load_mobile(run), run.faces()[0], load_pairs(run.root / "pairs")


def train_e4e(run: Run, options: LoopOptions) -> int:
    """Trains the e4e encoder (stage b) on the run's generator, from the encoder that was trained beside it if any.

    Returns:
        The step reached.

    Raises:
        ValueError: if the run's generator, backbone or loss networks are not those that the recipe needs.
        FileNotFoundError: if an earlier stage has not been run.
    """
    family, settings = run.recipe.family, run.recipe.e4e
    check_backbone(run)
    losses = load_losses(run)
    if isinstance(settings, LightE4EOptions):
        light = LightE4EStage(*_light_material(run), losses, settings, seed=options.seed, device=run.device)
        start_from_bundle(run, light)
        return train(light, run.root / "e4e", options)
    stage = E4EStage(
        family, load_generator(run), run.faces()[0], losses, settings, seed=options.seed, device=run.device
    )
    if not run.trained("generator"):
        start_from_bundle(run, stage)
    elif run.recipe.joint is not None:
        for name in ("encoder", "latent", "average"):
            load_module(run.root / "generator", "generator", f"e4e_{name}", stage.modules[name])
    start_from_backbone(run, stage.encoder, stage.average.module)
    return train(stage, run.root / "e4e", options)


def train_encoder(run: Run, options: LoopOptions) -> int:
    """Trains the high-fidelity encoder E (stage c), from the encoder that was trained beside the generator if any.

    Returns:
        The step reached.

    Raises:
        ValueError, FileNotFoundError: as `train_e4e`.
    """
    family, source, settings = run.recipe.family, run.root / "generator", run.recipe.encoder
    check_backbone(run)
    losses = load_losses(run)
    if isinstance(settings, LightEncoderOptions):
        e4e = load_system(run, encoder=False, editor=False).e4e
        assert isinstance(e4e, LightE4EEncoder)
        light = LightEncoderStage(*_light_material(run), e4e, losses, settings, seed=options.seed, device=run.device)
        start_from_bundle(run, light)
        return train(light, run.root / "encoder", options)
    if run.trained("generator"):
        discriminator = load_discriminator(source, family)
    else:
        discriminator = Discriminator(family, run.recipe.photo_shape[1])
    if run.from_bundle is not None and not run.trained("generator"):
        # A bundle holds no discriminator, and one that starts anew has nothing to say in a short run.
        settings = dataclasses.replace(settings, adversarial_from=options.steps)
    stage = EncoderStage(
        family,
        load_generator(run),
        discriminator,
        run.faces()[0],
        losses,
        settings,
        seed=options.seed,
        device=run.device,
    )
    if not run.trained("generator"):
        start_from_bundle(run, stage)
    elif run.recipe.joint is not None and run.recipe.joint.encoder is not None:
        for name in ("encoder", "average"):
            load_module(source, "generator", f"encoder_{name}", stage.modules[name])
    start_from_backbone(run, *(encoder.encoder for encoder in (stage.encoder, stage.average.module)))
    return train(stage, run.root / "encoder", options)


def _imported_directions(run: Run) -> list[Direction]:
    """Directions in the run's folder that `fit_directions` does not write itself."""
    own = set(run.recipe.directions.attributes)
    files = sorted((run.root / "directions").glob("*.safetensors"))
    return [Direction.load(file) for file in files if file.stem not in own]


def fit_directions(run: Run, seed: int = 0) -> list[Direction]:
    """Fits the recipe's directions to the run's generator, and writes them into the run's folder `directions/`.

    Beside them lie `effects.json`, what each does to each attribute, and `sheet.jpg`, all directions there on
    samples of the generator.

    Returns:
        The directions that were fitted.

    Raises:
        ValueError, FileNotFoundError: as `train_e4e`.
    """
    system = load_system(run, encoder=False, editor=False).to(run.device)
    generator = system.generator
    identity = load_run_identity(run)
    judges, options = Judges(run.judges), run.recipe.directions
    samples, fixed = None, []
    if run.recipe.pairs:
        # Directions that were imported into the run stay, and those that are fitted leave them alone.
        fixed = [d.vector for d in _imported_directions(run) if d.space == "w" and d.rows is None]
        samples = pair_codes(load_pairs(run.root / "pairs"), judges, options)
    elif options.photos:
        samples = photo_codes(system.e4e, generator, system.latent_avg, run.faces()[0], judges, options, seed=seed)
    directions, effects = fit(generator, judges, identity, options, seed=seed, samples=samples, fixed=fixed)
    folder = run.root / "directions"
    folder.mkdir(parents=True, exist_ok=True)
    for direction in directions:
        direction.save(folder / f"{direction.name}.safetensors")
    write(folder / "effects.json", json.dumps(effects, indent=1).encode())
    direction_sheet(generator, system.latent_avg, load_run_directions(run), seed=seed).save(folder / "sheet.jpg")
    return directions


def train_editor(run: Run, options: LoopOptions) -> int:
    """Trains the feature editor T (stage d) on edits by the run's directions; all other networks are frozen.

    Returns:
        The step reached.

    Raises:
        ValueError, FileNotFoundError: as `train_e4e`; also if a direction that the recipe names is not there.
    """
    directions, losses = edited_directions(run), load_losses(run)
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
            losses,
            settings,
            seed=options.seed,
            device=run.device,
        )
    else:
        stage = EditorStage(system, run.faces()[0], directions, losses, settings, seed=options.seed, device=run.device)
    start_from_bundle(run, stage)
    return train(stage, run.root / "editor", options)


@torch.no_grad()
def calibrate(run: Run, photos: int | None = None) -> dict[str, dict[str, float]]:
    """Sets the range of every direction to the strengths at which edited training photos keep their identity.

    What `fit` found before the editor was trained says how far samples can go; photos go less far, or farther.

    Args:
        photos: how many are edited, spread over the training set: file names may be in order of age. None: as many
            as the recipe says.

    Returns:
        By direction, the range that was written.
    """
    system = load_system(run)
    faces = run.faces()[0]
    (run.root / "directions").mkdir(parents=True, exist_ok=True)
    images = faces.tensor(np.linspace(0, len(faces) - 1, photos or run.recipe.calibrated).astype(int), run.device)
    identity = load_run_identity(run)
    ranges = {}
    for direction in load_run_directions(run):
        low, high = photo_range(system, images, identity, direction, limit=run.recipe.directions.limit)
        ranges[direction.name] = {"min_strength": low, "max_strength": high}
        measured = dataclasses.replace(direction, **ranges[direction.name])
        measured.save(run.root / "directions" / f"{direction.name}.safetensors")
    return ranges


def _digest(*parts: Any) -> str:
    """A digest of networks and of texts."""
    result = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.nn.Module):
            for tensor in part.state_dict().values():
                result.update(tensor.cpu().contiguous().numpy().tobytes())
        else:
            result.update(str(part).encode())
    return result.hexdigest()


def _once(run: Run, name: str, digest: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A measurement of these networks and photos from the run's folder, or one that is made now and written there."""
    path = run.root / "evaluate" / f"{name}.json"
    if path.exists() and (earlier := json.loads(path.read_text()))["of"] == digest:
        return earlier["value"]
    value = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps({"of": digest, "value": value}, indent=1).encode())
    return value


@torch.no_grad()
def evaluate(run: Run) -> dict[str, Any]:
    """Measures the trained system on the held-out photos, with the weights as a bundle stores them (FP16).

    Each figure is written into the run's folder, in `evaluate/`, as soon as it is there: a measurement that was stopped
    goes on.

    Returns:
        The number of photos and the names of the first and last, PSNR (dB), LPIPS and identity cosine of
        reconstructions, the same with each edit's effect, and each of `TARGETS` beside what was reached.

    Raises:
        ValueError: if a direction that the recipe measures is not there.
        FileNotFoundError: if a stage has not been run.
    """
    system = load_system(run)
    for tensor in (*system.parameters(), *system.buffers()):
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    held_out = run.faces()[1]
    identity, judges, lpips = load_run_identity(run), Judges(run.judges), LPIPS(run.losses.require("lpips")).eval()
    evaluator = Evaluator(system, held_out, lpips, identity, judges, device=run.device)
    inverters = _digest(system.encoder, system.ftem, system.e4e, system.generator, held_out.names)
    reconstruction = _once(run, "reconstruction", inverters, evaluator.reconstruction)
    edited = held_out
    if 0 < run.recipe.edited_photos < len(held_out):
        chosen = np.linspace(0, len(held_out) - 1, run.recipe.edited_photos).astype(int)
        edited = FaceSet(held_out.images[chosen], tuple(held_out.names[i] for i in chosen))
        evaluator = Evaluator(system, edited, lpips, identity, judges, device=run.device)
    directions = {d.name: d for d in load_run_directions(run)}
    if lacking := [name for name, _ in run.recipe.measured if name not in directions]:
        raise ValueError(
            f"the recipe measures edits along {lacking[0]}, which {run.root / 'directions'} lacks; put its file there "
            "(`edgedit import direction`)"
        )
    scored = [name for name in (*judges.names, "male") if name in directions]
    ends = [(name, end) for name in scored for end in (directions[name].max_strength, directions[name].min_strength)]
    whole = _digest(inverters, system.editor, edited.names)
    edits = [
        _once(
            run,
            f"{name}{strength:+g}",
            _digest(whole, directions[name].vector.tobytes(), directions[name].rows),
            functools.partial(evaluator.edit, directions[name], strength, name if name in scored else None),
        )
        for name, strength in run.recipe.measured or ends
    ]
    return {
        "photos": len(held_out),
        "edited_photos": len(edited),
        "first": held_out.names[0],
        "last": held_out.names[-1],
        "size": run.recipe.family.size,
        "reconstruction": reconstruction,
        "edits": edits,
        "targets": compare_targets(reconstruction["ours"], edits),
    }
