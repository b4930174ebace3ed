"""The form of a recipe: the settings and lengths of every stage, for one family."""

from __future__ import annotations

from dataclasses import dataclass

from engines.family import ModelFamily
from training.stages.directions import FitOptions
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
    """The generator's training; None where it is imported."""
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
    """True if photos are of faces, which a face embedder tells apart and judges score. Of anything else MoCo v2's
    ResNet-50 says how alike two photos are (section 3.3), and nothing is scored."""
    lpips: str | None = None
    """The LPIPS variant that pictures are compared with, "vgg16" or "alexnet"; None: either."""
    calibrated: int = 64
    """Training photos on which the directions' ranges are measured."""
    measured: tuple[tuple[str, float], ...] = ()
    """Edits that `evaluate` measures, directions and strengths; empty: both ends of all that a judge scores."""
    pairs: int = 0
    """Synthetic pairs that the stages of a light family draw from (see `training.stages.pairs`)."""
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
