"""Stage a for short runs: the generator's adversarial training with an e4e encoder beside it.

A GAN alone needs hundreds of thousands of images before its samples are faces. Here real photos also pass through an
e4e encoder and the generator, and the image losses train both: the generator learns faces from the first steps on, and
stage b starts from an encoder that is nearly there. The adversarial step is `GanStage`'s, unchanged.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from engines.family import ModelFamily
from training.data import FaceSet
from training.losses.image import LossFiles
from training.stages.e4e import E4EOptions, E4EStage
from training.stages.gan import GanOptions, GanStage


class JointStage:
    """`E4EStage` and, every `adversarial_every` steps, `GanStage` on one generator."""

    name = "generator"

    def __init__(
        self,
        family: ModelFamily,
        faces: FaceSet,
        files: LossFiles,
        options: GanOptions,
        e4e: E4EOptions,
        *,
        adversarial_every: int = 1,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if adversarial_every < 1:
            raise ValueError(f"adversarial_every must be at least 1, got {adversarial_every}")
        self.adversarial_every = adversarial_every
        self.gan = GanStage(family, faces, options, seed=seed, device=device)
        self.e4e = E4EStage(family, self.gan.generator, faces, files, e4e, seed=seed, device=device)
        generator = self.gan.generator
        synthesis = [p for name, p in generator.named_parameters() if not name.startswith("style.")]
        self.e4e.generator_optimizer = Adam(synthesis, options.learning_rate / 2, betas=(0.9, 0.99))
        self.fixed_z = torch.randn(2048, family.style_dim, device=device)

    @property
    def modules(self) -> dict[str, nn.Module]:
        return self.gan.modules | {f"e4e_{name}": module for name, module in self.e4e.modules.items()}

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        assert self.e4e.generator_optimizer is not None
        own = {f"e4e_{name}": optimizer for name, optimizer in self.e4e.optimizers.items()}
        return self.gan.optimizers | own | {"e4e_generator": self.e4e.generator_optimizer}

    def config(self) -> dict[str, Any]:
        return self.gan.config() | {"e4e": asdict(self.e4e.options), "adversarial_every": self.adversarial_every}

    def step(self, step: int) -> dict[str, float | Tensor]:
        # Counted in its own steps, so that the lazy gradient penalty keeps its rhythm and weight.
        turn, rest = divmod(step, self.adversarial_every)
        scalars = self.gan.step(turn) if rest == 0 else {}
        # Steps without an adversarial part still move the generator, so its average follows here.
        if rest:
            options = self.gan.options
            self.gan.average.update(self.gan.generator, (step + 1) * options.batch, options.batch)
        with torch.no_grad():
            # The mapping network moves, and with it the mean that offsets start from.
            self.e4e.mean = self.gan.generator.mapping(self.fixed_z).mean(dim=0)
        return scalars | self.e4e.step(step)

    @torch.no_grad()
    def grid(self) -> Tensor:
        return torch.cat([self.gan.grid(), self.e4e.grid()])
