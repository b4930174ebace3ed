"""The demo models' recipes: small models from nothing, the generator included."""

from __future__ import annotations

import dataclasses

from engines.family import DEMO_64, DEMO_128, ModelFamily
from training.losses.image import ImageWeights
from training.recipes.base import Recipe
from training.stages.directions import FitOptions
from training.stages.e4e import E4EOptions
from training.stages.editor import EditorOptions
from training.stages.encoder import EncoderOptions
from training.stages.gan import GanOptions
from training.stages.joint import JointOptions


def _demo(
    family: ModelFamily,
    *,
    batch: int,
    generator_steps: int,
    e4e_steps: int,
    encoder_steps: int,
    fit_samples: int,
    editor_steps: int,
    editor_photos: int,
) -> Recipe:
    """The paper's losses, weights and order of events on a short run.

    The paper's 120,000 and 45,000 steps shrink to thousands, so the learning rate of 1e-4 grows ten- to thirtyfold and
    falls at the end; the adversarial and the discrepancy losses start after the same share of the run as in the paper
    (45/120, 20/45). The encoders that trained beside the generator settle on it in stages b and c, at lower rates.

    What edits can draw is what the generator draws from a W+ code alone, and that path learns slowest: it gets every
    step of stage a, the adversarial loss one in eight, the encoder E one in four. The facial features count twice.
    Directions come from the codes of photos, since so short an adversarial training gives no faithful samples.

    Two things are not the paper's. Identity counts 1.0 in stage c and 0.3 in stage d, not 0.1: on 64 pixels its
    gradient is small beside the pixels', and likeness stayed behind long after hair and background were right. And the
    generator's upper half learns with E in stage c (`EncoderOptions.upper_rate`).
    """
    image = ImageWeights(l2_root=True, face=1.0, identity_images=max(batch // 4, 2))
    e4e = E4EOptions(batch=2 * batch, learning_rate=3e-3, image=image, latent=0.01, ema_images=8_000.0, bf16=True)
    encoder = EncoderOptions(
        batch=batch,
        learning_rate=1.5e-3,
        image=image,
        w_images=batch // 2,
        adversarial_from=encoder_steps * 45 // 120,
        adversarial_every=4,
        ema_images=3_000.0,
        bf16=True,
    )
    beside = dataclasses.replace(encoder, adversarial_from=generator_steps)
    return Recipe(
        family=family,
        held_out=500,
        generator=GanOptions(
            batch=2 * batch,
            learning_rate=5e-4,
            r1_gamma=0.02,
            augment=("translation",),
            ema_images=8_000.0,
            bf16=True,
        ),
        generator_steps=generator_steps,
        joint=JointOptions(
            e4e=e4e, encoder=beside, adversarial_every=8, e4e_every=1, encoder_every=4, generator_rate=4e-3
        ),
        e4e=dataclasses.replace(e4e, learning_rate=1e-3),
        e4e_steps=e4e_steps,
        encoder=dataclasses.replace(
            encoder,
            learning_rate=6e-4,
            image=dataclasses.replace(image, identity=1.0, identity_images=0),
            w_images=batch // 4,
            upper_rate=1e-3,
        ),
        encoder_steps=encoder_steps,
        directions=FitOptions(samples=fit_samples, photos=True, regression=True, probes=16, components=4),
        editor=EditorOptions(
            batch=2 * batch,
            learning_rate=1e-3,
            edit_share=0.75,
            photo_share=0.67,
            image=dataclasses.replace(image, identity=0.3, identity_images=batch),
            discrepancy_from=editor_steps * 20 // 45,
            photos=editor_photos,
            bf16=True,
        ),
        editor_steps=editor_steps,
        edited=("age", "female", "smile", "yaw"),
        decay=0.5,
    )


def demo_64() -> Recipe:
    """The training of the demo model, 64 pixels from nothing."""
    return _demo(
        DEMO_64,
        batch=8,
        generator_steps=5_500,
        e4e_steps=300,
        encoder_steps=3_800,
        fit_samples=4_000,
        editor_steps=1_300,
        editor_photos=4_000,
    )


def demo_128() -> Recipe:
    """The demo model's training at twice the size, and longer."""
    return _demo(
        DEMO_128,
        batch=8,
        generator_steps=60_000,
        e4e_steps=30_000,
        encoder_steps=30_000,
        fit_samples=4_000,
        editor_steps=12_000,
        editor_photos=0,
    )
