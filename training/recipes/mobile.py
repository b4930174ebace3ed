"""The portrait model's recipe: light networks on an imported MobileStyleGAN."""

from __future__ import annotations

from engines.family import FACES_1024_MOBILE
from training.recipes.base import Recipe
from training.stages.directions import FitOptions
from training.stages.light_e4e import LightE4EOptions
from training.stages.light_editor import LightEditorOptions
from training.stages.light_encoder import LightEncoderOptions


def faces_1024_mobile() -> Recipe:
    """Light encoders and a light editor for MobileStyleGAN."""
    return Recipe(
        family=FACES_1024_MOBILE,
        held_out=500,
        e4e=LightE4EOptions(),
        e4e_steps=4_000,
        encoder=LightEncoderOptions(),
        encoder_steps=8_000,
        directions=FitOptions(
            samples=4_000, normal=True, attributes=("pitch", "surprise", "anger"), components=0, probes=8, limit=4.0
        ),
        calibrated=16,
        measured=(
            ("smile", 1.5),
            ("smile", -1.5),
            ("age", 4.25),
            ("age", -2.0),
            ("yaw", 3.0),
            ("yaw", -2.5),
            ("male", 4.0),
            ("male", -4.0),
            ("glasses", 2.5),
        ),
        editor=LightEditorOptions(),
        editor_steps=6_000,
        below_feature=True,
        decay=0.5,
        photo_size=256,
        pairs=8_000,
        warm_up=100,
    )
