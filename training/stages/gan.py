"""Stage a: generator and discriminator (Karras et al. 2020).

Non-saturating logistic loss, lazy R1, style mixing, horizontal flips, differentiable augmentation, averaged generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from engines.family import ModelFamily
from training.data import FaceSet
from training.networks.discriminator import Discriminator
from training.networks.stylegan2 import Generator
from training.stages.augment import diff_augment
from training.stages.base import TrainingStage
from training.stages.protocol import Averaged, StageOptions, descend, set_requires_grad


@dataclass(frozen=True, kw_only=True)
class GanOptions(StageOptions):
    """Settings of the generator's training."""

    batch: int = 32
    learning_rate: float = 2e-3
    r1_gamma: float = 0.1
    """Weight of the gradient penalty on real images."""
    r1_every: int = 16
    """Steps between two (accordingly heavier) gradient penalties."""
    mixing: float = 0.9
    """Probability that a W+ code is mixed from two W codes."""
    augment: tuple[str, ...] = ("color", "translation")
    ema_images: float = 10_000.0
    lower_only: bool = False
    """Train only the generator's lower half and keep the mapping network and the upper half as they are: stage c
    depends on those two and can then run at the same time."""


class GanStage(TrainingStage[GanOptions]):
    """Trains `Generator` and `Discriminator` of a family on aligned images."""

    name = "generator"

    def __init__(
        self, family: ModelFamily, faces: FaceSet, options: GanOptions, *, seed: int = 0, device: str = "cpu"
    ) -> None:
        super().__init__(family, faces, options, seed=seed, device=device)
        self.generator = Generator(family).to(device)
        # Every activation inherits the memory format of the constant input.
        self.generator.input.to(memory_format=torch.channels_last)
        if options.lower_only:
            set_requires_grad([self.generator.style, *self.generator.upper_modules()], False)
        self.discriminator = Discriminator(family).to(device, memory_format=torch.channels_last)
        self.average = Averaged(self.generator, half_life=options.ema_images)
        lazy = options.r1_every / (options.r1_every + 1)
        self.optimizers = {
            "generator": Adam(self.generator.parameters(), options.learning_rate, betas=(0.0, 0.99)),
            "discriminator": Adam(
                self.discriminator.parameters(), options.learning_rate * lazy, betas=(0.0, 0.99**lazy)
            ),
        }
        self.fixed_z = torch.randn(32, family.style_dim, device=device)

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "average": self.average}

    def _codes(self) -> Tensor:
        """W+ codes; with probability `mixing`, rows from a random one on come from a second code."""
        batch, rows = self.options.batch, self.family.w_rows
        z = torch.randn(2, batch, self.family.style_dim, device=self.device)
        first, second = (self.generator.broadcast(self.generator.mapping(one)) for one in z)
        cut = torch.randint(1, rows, (batch, 1, 1), device=self.device)
        cut = torch.where(torch.rand(batch, 1, 1, device=self.device) < self.options.mixing, cut, rows)
        return torch.where(torch.arange(rows, device=self.device)[None, :, None] < cut, first, second)

    def _fake(self) -> Tensor:
        return self.generator(self._codes(), random_noise=True)

    def _judge(self, images: Tensor) -> Tensor:
        images = diff_augment(images, self.options.augment)
        return self.discriminator(images.contiguous(memory_format=torch.channels_last))

    def step(self, step: int) -> dict[str, float | Tensor]:
        with self.autocast():
            return self._step(step)

    def _step(self, step: int) -> dict[str, float | Tensor]:
        o = self.options
        real = self.photos(step)

        set_requires_grad([self.discriminator], True)
        with torch.no_grad():
            fake = self._fake()
        real_logit, fake_logit = self._judge(real), self._judge(fake)
        d_loss = F.softplus(fake_logit).mean() + F.softplus(-real_logit).mean()
        descend(d_loss, self.optimizers["discriminator"])
        scalars: dict[str, float | Tensor] = {
            "d_loss": d_loss.detach(),
            "real_sign": real_logit.detach().sign().mean(),
        }
        if step % o.r1_every == 0:
            scalars["r1"] = self._penalty(real)

        set_requires_grad([self.discriminator], False)
        g_loss = F.softplus(-self._judge(self._fake())).mean()
        descend(g_loss, self.optimizers["generator"])
        self.average.update(self.generator, (step + 1) * o.batch, o.batch)
        return scalars | {"g_loss": g_loss.detach()}

    def _penalty(self, real: Tensor) -> Tensor:
        """R1 on half the batch: (gamma / 2) |grad D(x)|^2, scaled by the steps it stands for."""
        images = real[: max(self.options.batch // 2, 4)].detach().requires_grad_(True)
        logits = self.discriminator(diff_augment(images, self.options.augment))
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
        descend(penalty * (self.options.r1_gamma / 2 * self.options.r1_every), self.optimizers["discriminator"])
        return penalty.detach()

    @torch.no_grad()
    def grid(self) -> Tensor:
        generator: Generator = self.average.module  # type: ignore[assignment]
        images = generator(generator.broadcast(generator.mapping(self.fixed_z)))
        return images.view(4, 8, *images.shape[1:])
