"""Stage b: the e4e encoder (Tov et al. 2021), an inversion into W+ that stays close to W.

Image losses, progressive rows, delta regularisation, and a latent discriminator that tells rows from mapped codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from pytorch_optimizer import Ranger
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from engines.family import ModelFamily
from training.data import FaceSet, encoder_input
from training.losses.image import ImageLoss, ImageWeights, LossFiles
from training.networks.e4e import E4EEncoder
from training.networks.latents import mean_w
from training.networks.stylegan2 import Generator
from training.stages.base import TrainingStage
from training.stages.protocol import Averaged, StageOptions, descend


@dataclass(frozen=True, kw_only=True)
class E4EOptions(StageOptions):
    """Settings of the e4e stage; loss weights follow the e4e publication."""

    batch: int = 16
    learning_rate: float = 1e-4
    image: ImageWeights = field(default_factory=ImageWeights)
    delta: float = 2e-4
    """Weight of the lengths of the further rows' offsets from the first, summed over these rows. The published 2e-4
    belongs to the norm, not to its square (omertov/encoder4editing, `training/coach.py`)."""
    latent: float = 0.1
    """Weight of the latent discriminator's judgement."""
    latent_r1: float = 10.0
    progressive_from: int = 0
    """Step from which the second row gets an offset of its own."""
    progressive_every: int = 0
    """Steps between two rows joining; 0: all rows from the start."""
    bf16: bool = False


class LatentDiscriminator(nn.Module):
    """Four linear layers with leaky ReLUs of slope 0.2 between: B x D to a logit B x 1."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Linear(dim, dim), nn.LeakyReLU(0.2)]
        self.mlp = nn.Sequential(*layers, nn.Linear(dim, 1))

    def forward(self, w: Tensor) -> Tensor:
        return self.mlp(w)


class E4EStage(TrainingStage[E4EOptions]):
    """Trains `E4EEncoder` against a frozen generator, or with it if `generator_optimizer` is set."""

    name = "e4e"

    def __init__(
        self,
        family: ModelFamily,
        generator: Generator,
        faces: FaceSet,
        files: LossFiles,
        options: E4EOptions,
        *,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(family, faces, options, seed=seed, device=device)
        self.generator = generator.to(device)
        self.encoder = E4EEncoder(family).to(device, memory_format=torch.channels_last)
        self.latent = LatentDiscriminator(family.style_dim).to(device)
        self.average = Averaged(self.encoder, half_life=options.ema_images)
        self.loss = ImageLoss(files, options.image).to(device)
        self.mean = mean_w(self.generator)
        self.generator_optimizer: Optimizer | None = None
        self.optimizers = {
            "encoder": Ranger(self.encoder.parameters(), lr=options.learning_rate),
            "latent": Adam(self.latent.parameters(), lr=2e-5 * options.learning_rate / 1e-4, betas=(0.0, 0.99)),
        }

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "latent": self.latent, "average": self.average}

    def _rows(self, step: int) -> int:
        """The number of rows that have an offset of their own at this step."""
        o = self.options
        if o.progressive_every == 0:
            return self.family.w_rows
        return max(1, min(self.family.w_rows, 2 + (step - o.progressive_from) // o.progressive_every))

    def _limit(self, offsets: Tensor, rows: int) -> Tensor:
        """Rows that have not joined yet repeat the first."""
        if rows >= offsets.shape[1]:
            return offsets
        return torch.cat([offsets[:, :rows], offsets[:, :1].expand(-1, offsets.shape[1] - rows, -1)], dim=1)

    def step(self, step: int) -> dict[str, float | Tensor]:
        o = self.options
        images = self.photos(step).contiguous(memory_format=torch.channels_last)
        with self.autocast():
            offsets = self._limit(self.encoder(encoder_input(images, self.family)).float(), self._rows(step))
            total, terms = self.loss(self.as_photos(self.generator(offsets + self.mean)), images)
        delta = torch.linalg.vector_norm(offsets[:, 1:] - offsets[:, :1], dim=2).mean()
        row = torch.randint(0, self.family.w_rows, (o.batch,), device=self.device)
        fake = (offsets + self.mean)[torch.arange(o.batch, device=self.device), row]
        latent = F.softplus(-self.latent(fake)).mean()
        total = total + o.delta * delta * (self.family.w_rows - 1) + o.latent * latent
        descend(total, self.optimizers["encoder"], self.generator_optimizer)
        self._latent_step(fake.detach())
        self.average.update(self.encoder, (step + 1) * o.batch, o.batch)
        return {**terms, "delta": delta.detach(), "latent": latent.detach()}

    def _latent_step(self, fake: Tensor) -> None:
        z = torch.randn(len(fake), self.family.style_dim, device=self.device)
        real = self.generator.mapping(z).detach().requires_grad_(True)
        real_logit = self.latent(real)
        loss = F.softplus(self.latent(fake)).mean() + F.softplus(-real_logit).mean()
        (gradient,) = torch.autograd.grad(real_logit.sum(), real, create_graph=True)
        loss = loss + self.options.latent_r1 / 2 * gradient.square().sum(dim=1).mean()
        descend(loss, self.optimizers["latent"])

    @torch.no_grad()
    def grid(self) -> Tensor:
        images = self.faces.tensor(slice(0, 8), self.device)
        codes = self.average.module(encoder_input(images, self.family)) + self.mean
        return torch.stack([images, self.as_photos(self.generator(codes))])
