"""Recipes: everything a training run needs to be repeated, by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from engines.family import DEMO_64, DEMO_128, ModelFamily
from training.directions import FitOptions
from training.losses.image import ImageWeights
from training.stages.e4e import E4EOptions
from training.stages.editor import EditorOptions
from training.stages.encoder import EncoderOptions
from training.stages.gan import GanOptions


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings and lengths (optimizer steps) of the four stages and of the direction fit for one family."""

    family: ModelFamily
    held_out: int
    """Images, the last by file name, that no stage sees."""
    generator: GanOptions
    generator_steps: int
    joint: E4EOptions | None
    """Train an e4e encoder beside the generator (see `training.stages.joint`), for runs too short for a GAN alone."""
    e4e: E4EOptions
    e4e_steps: int
    encoder: EncoderOptions
    encoder_steps: int
    directions: FitOptions
    editor: EditorOptions
    editor_steps: int


def _demo(
    family: ModelFamily, *, batch: int, joint: bool, generator_steps: int, encoder_steps: int, editor_steps: int
) -> Recipe:
    """The paper's losses, weights and order of events on a short run.

    The paper's 120,000 and 45,000 steps shrink to thousands, so the learning rate of 1e-4 grows ten- to twentyfold; the
    adversarial and the discrepancy losses start after the same share of the run as in the paper (45/120 and 20/45).
    """
    plain = ImageWeights(identity_images=batch // 8)
    image = dataclasses.replace(plain, l2_root=True)
    return Recipe(
        family=family,
        held_out=500,
        generator=GanOptions(batch=2 * batch, augment=("translation",), bf16=True),
        generator_steps=generator_steps,
        joint=E4EOptions(batch=batch, learning_rate=1e-3, image=plain, bf16=True) if joint else None,
        e4e=E4EOptions(batch=batch, learning_rate=1e-3, image=plain, bf16=True),
        e4e_steps=encoder_steps,
        encoder=EncoderOptions(
            batch=batch,
            learning_rate=2e-3,
            image=image,
            adversarial_from=encoder_steps * 45 // 120,
            adversarial_every=4,
            bf16=True,
        ),
        encoder_steps=encoder_steps,
        directions=FitOptions(),
        editor=EditorOptions(
            batch=batch,
            learning_rate=1e-3,
            edit_share=0.75,
            image=image,
            discrepancy_from=editor_steps * 20 // 45,
            bf16=True,
        ),
        editor_steps=editor_steps,
    )


RECIPES: dict[str, Recipe] = {
    "demo-64": _demo(DEMO_64, batch=16, joint=True, generator_steps=3_600, encoder_steps=2_000, editor_steps=1_200),
    "demo-128": _demo(
        DEMO_128, batch=16, joint=True, generator_steps=60_000, encoder_steps=30_000, editor_steps=12_000
    ),
}


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]
