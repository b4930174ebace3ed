"""Stage a for short runs: the generator's adversarial training with the encoders of stages b and c beside it.

A GAN alone needs hundreds of thousands of images before its samples are faces. Here real photos also pass through an
encoder and the generator, and the image losses train both: the generator learns faces from the first steps on, its
upper half learns to render the features of real photos, and the later stages start from encoders that are nearly
there. The adversarial step is `GanStage`'s, unchanged.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from engines.family import ModelFamily
from training.data import FaceSet
from training.losses.image import LossFiles
from training.stages.e4e import E4EOptions, E4EStage
from training.stages.encoder import EncoderOptions, EncoderStage
from training.stages.gan import GanOptions, GanStage


@dataclass(frozen=True, kw_only=True)
class JointOptions:
    """Settings of what trains beside the generator, and how often.

    Raises:
        ValueError: at construction, for intervals below 1.
    """

    e4e: E4EOptions
    encoder: EncoderOptions | None = None
    """The options of E; None without an encoder E beside it."""
    adversarial_every: int = 1
    """Steps between two adversarial ones."""
    e4e_every: int = 1
    """Steps between two of the e4e encoder."""
    encoder_every: int = 1
    """Steps between two of the encoder E."""
    generator_rate: float | None = None
    """Learning rate of the synthesis network under the encoders' losses, which bear a far higher one than an
    adversarial loss does. None: half the adversarial rate."""

    def __post_init__(self) -> None:
        for name in ("adversarial_every", "e4e_every", "encoder_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class JointStage:
    """`GanStage`, `E4EStage` and, if asked for, `EncoderStage` on one generator.

    The encoders' losses train the synthesis network but not the mapping network.
    """

    name = "generator"

    def __init__(
        self,
        family: ModelFamily,
        faces: FaceSet,
        files: LossFiles,
        options: GanOptions,
        joint: JointOptions,
        *,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.options = joint
        self.gan = GanStage(family, faces, options, seed=seed, device=device)
        self.e4e = E4EStage(family, self.gan.generator, faces, files, joint.e4e, seed=seed, device=device)
        generator = self.gan.generator
        synthesis = [p for name, p in generator.named_parameters() if not name.startswith("style.")]
        rate = joint.generator_rate or options.learning_rate / 2
        self.e4e.generator_optimizer = Adam(synthesis, rate, betas=(0.9, 0.99))
        self.encoder: EncoderStage | None = None
        if joint.encoder is not None:
            self.encoder = EncoderStage(
                family, generator, self.gan.discriminator, faces, files, joint.encoder, seed=seed, device=device
            )
            self.encoder.generator_optimizer = Adam(synthesis, rate, betas=(0.9, 0.99))
        self.fixed_z = torch.randn(2048, family.style_dim, device=device)

    @property
    def modules(self) -> dict[str, nn.Module]:
        own = {f"e4e_{name}": module for name, module in self.e4e.modules.items()}
        if self.encoder is not None:
            own |= {f"encoder_{name}": self.encoder.modules[name] for name in ("encoder", "average")}
        return self.gan.modules | own

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        assert self.e4e.generator_optimizer is not None
        own = {f"e4e_{name}": optimizer for name, optimizer in self.e4e.optimizers.items()}
        own["e4e_generator"] = self.e4e.generator_optimizer
        if self.encoder is not None:
            assert self.encoder.generator_optimizer is not None
            own |= {f"encoder_{name}": optimizer for name, optimizer in self.encoder.optimizers.items()}
            own["encoder_generator"] = self.encoder.generator_optimizer
        return self.gan.optimizers | own

    def config(self) -> dict[str, Any]:
        return self.gan.config() | {"joint": asdict(self.options)}

    def step(self, step: int) -> dict[str, float | Tensor]:
        # Counted in its own steps, so that the lazy gradient penalty keeps its rhythm and weight.
        turn, rest = divmod(step, self.options.adversarial_every)
        scalars = self.gan.step(turn) if rest == 0 else {}
        # Steps without an adversarial part still move the generator, so its average follows here.
        if rest:
            options = self.gan.options
            self.gan.average.update(self.gan.generator, (step + 1) * options.batch, options.batch)
        with torch.no_grad():
            # The mapping network moves, and with it the mean that offsets start from.
            self.e4e.mean = self.gan.generator.mapping(self.fixed_z).mean(dim=0)
        turn, rest = divmod(step, self.options.encoder_every)
        if self.encoder is not None and rest == 0:
            self.encoder.mean = self.e4e.mean
            scalars |= {f"encoder_{name}": value for name, value in self.encoder.step(turn).items()}
        turn, rest = divmod(step, self.options.e4e_every)
        if rest == 0:
            scalars |= self.e4e.step(turn)
        return scalars

    @torch.no_grad()
    def grid(self) -> Tensor:
        grids = [self.gan.grid(), self.e4e.grid()]
        if self.encoder is not None:
            grids.append(self.encoder.grid()[1:])
        return torch.cat(grids)
