"""Recipes: everything a training run needs to be repeated, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from engines.family import CARS_512, DEMO_64, DEMO_128, FACES_1024, FACES_1024_MOBILE, ModelFamily
from training.data import at_once
from training.directions import FitOptions
from training.losses.image import ImageWeights
from training.stages.e4e import E4EOptions
from training.stages.editor import EditorOptions
from training.stages.encoder import EncoderOptions
from training.stages.gan import GanOptions
from training.stages.joint import JointOptions
from training.stages.light_e4e import LightE4EOptions
from training.stages.light_editor import LightEditorOptions
from training.stages.light_encoder import LightEncoderOptions


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings and lengths (optimizer steps) of the four stages and of the direction fit for one family."""

    family: ModelFamily
    held_out: int
    """Images, the last by file name, that no stage sees."""
    generator: GanOptions | None = None
    """None: the generator is imported, not trained."""
    generator_steps: int = 0
    joint: JointOptions | None = None
    """Train the encoders beside the generator, for runs too short for a GAN alone."""
    e4e: E4EOptions | LightE4EOptions
    e4e_steps: int
    encoder: EncoderOptions | LightEncoderOptions
    encoder_steps: int
    directions: FitOptions
    editor: EditorOptions | LightEditorOptions
    editor_steps: int
    photo_size: int | None = None
    """Width to which training photos are resized, at which rendered pictures are compared with them; None: the
    family's."""
    faces: bool = True
    """Whether photos are of faces, which a face embedder tells apart and judges score. Of anything else MoCo v2's
    ResNet-50 says how alike two photos are (section 3.3), and nothing is scored."""
    lpips: str | None = None
    """The LPIPS variant that pictures are compared with, "vgg16" or "alexnet"; None: either."""
    calibrated: int = 64
    """Training photos on which the directions' ranges are measured."""
    measured: tuple[tuple[str, float], ...] = ()
    """Edits that `evaluate` measures, directions and strengths; empty: both ends of all that a judge scores."""
    edited_photos: int = 0
    """Held-out photos, evenly spread, on which `evaluate` measures edits; 0: all."""
    pairs: int = 0
    """Synthetic pairs that the stages of a light family draw from (see `training.pairs`)."""
    warm_up: int = 0
    """Steps, the first of each stage, over which learning rates rise."""
    edited: tuple[str, ...] = ()
    """Names of the directions that the editor is trained on; empty: all. Principal components of a small model are
    mostly light, whose pixels would outweigh a smile's."""
    below_feature: bool = False
    """Directions move the W+ rows below the feature alone. The rows above paint the whole picture from it: what an edit
    moves there is mostly the colour and light of skin and background alike."""
    decay: float = 0.0
    """Share of every stage's steps over which the learning rates fall (see `LoopOptions.decay`)."""

    @property
    def photo_shape(self) -> tuple[int, int]:
        """Height and width of training photos: `photo_size`, in the shape of the family's images."""
        height, width = self.family.image_shape
        side = self.photo_size or width
        return height * side // width, side


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


def _paper(family: ModelFamily, *, faces: bool, edited: tuple[str, ...], e4e_identity: float) -> Recipe:
    """The paper's training of a family (sections 3.3 and 4.1) on an imported StyleGAN2.

    Stages c and d have the paper's settings, which are their options' defaults: Ranger at 1e-4, batches of four, the
    weights of section 4.1, the adversarial loss from step 45,000 and the discrepancy loss from step 20,000.

    The paper takes e4e as it was published; stage b trains it as encoder4editing's README says: batches of eight, rows
    joining every 2,000 steps from step 20,000 on.

    Where the paper says nothing, this is done. Pictures are averaged down to 256 pixels before they are compared, as
    pSp and e4e do. The discriminator therefore judges that size, and starts anew, where the paper's starts from
    StyleGAN2's own: it has 75,000 steps to learn in. The paper trains on all of FFHQ and measures on CelebA-HQ; here
    the last 500 photos are held out to be measured on.
    """
    return Recipe(
        family=family,
        held_out=500,
        e4e=E4EOptions(
            batch=8,
            image=ImageWeights(identity=e4e_identity),
            progressive_from=20_000,
            progressive_every=2_000,
        ),
        e4e_steps=200_000,
        encoder=EncoderOptions(),
        encoder_steps=120_000,
        directions=FitOptions(batch=at_once(family)),
        editor=EditorOptions(ahead=False),
        editor_steps=45_000,
        photo_size=256,
        faces=faces,
        lpips="vgg16",
        edited=edited,
    )


def faces_1024() -> Recipe:
    """The paper's training for faces of 1024 pixels.

    The directions are those of section 4.1: of InterFaceGAN, of StyleSpace (from `gender` on) and of StyleCLIP (from
    `angry` on), to be imported under these names into the run's `directions/`.
    """
    interfacegan = ("pose", "smile", "age", "makeup", "glasses")
    stylespace = ("gender", "blond_hair")
    styleclip = ("angry", "afro", "bobcut", "mohawk", "purple_hair")
    return _paper(FACES_1024, faces=True, edited=interfacegan + stylespace + styleclip, e4e_identity=0.1)


def cars_512x384() -> Recipe:
    """The paper's training for cars of 512 x 384 pixels; encoders see 256 x 192.

    Identity is the cosine of MoCo v2's features; e4e gives it 0.5 there. The directions are GANSpace's (the first
    three) and StyleSpace's of section 4.1.
    """
    return _paper(CARS_512, faces=False, edited=("grass", "color", "cube", "trees", "headlights"), e4e_identity=0.5)


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
        calibrated=8,
        edited_photos=40,
        measured=(
            ("smile", 1.5),
            ("smile", -2.0),
            ("age", 2.5),
            ("age", -2.5),
            ("yaw", 2.0),
            ("yaw", -2.5),
            ("male", 3.5),
            ("male", -4.0),
            ("glasses", 3.0),
        ),
        editor=LightEditorOptions(),
        editor_steps=6_000,
        below_feature=True,
        decay=0.5,
        photo_size=256,
        pairs=8_000,
        warm_up=100,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo-64": demo_64,
    "demo-128": demo_128,
    FACES_1024.name: faces_1024,
    CARS_512.name: cars_512x384,
    FACES_1024_MOBILE.name: faces_1024_mobile,
}


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
