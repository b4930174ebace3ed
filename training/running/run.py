"""The stages assembled: each function runs one stage of a recipe inside a run folder.

What a stage builds on is in `training.running.folder`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import torch

from training.data import FaceSet
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
    load_system,
    start_from_backbone,
    start_from_bundle,
)
from training.running.loop import LoopOptions, train
from training.running.weights import load_discriminator, load_module
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


TRAINED: Mapping[str, Callable[[Run, LoopOptions], int]] = {
    "generator": train_generator,
    "e4e": train_e4e,
    "encoder": train_encoder,
    "editor": train_editor,
}
"""The functions that train, by the names of their stages and in their order."""
