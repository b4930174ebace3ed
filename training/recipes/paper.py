"""The paper's recipes: faces and cars on an imported StyleGAN2."""

from __future__ import annotations

from engines.family import CARS_512, FACES_1024, ModelFamily
from training.data import at_once
from training.losses.image import ImageWeights
from training.recipes.base import Recipe
from training.stages.directions import FitOptions
from training.stages.e4e import E4EOptions
from training.stages.editor import EditorOptions
from training.stages.encoder import EncoderOptions


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
