"""The common part of the three stages of the light family: a frozen generator, photos, pairs, losses, one trained
network."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam

from training.data import Batches, FaceSet
from training.losses.identity import Identity
from training.losses.image import LossFiles
from training.losses.lpips import LPIPS
from training.networks.latents import mean_w
from training.networks.mobilestylegan import MobileGenerator
from training.stages.base import Options, TrainingStage
from training.stages.pairs import PairSet
from training.stages.protocol import Averaged, descend
from training.stages.windows import Windowed


class LightStage(TrainingStage[Options]):
    """The common part of a light stage; a subclass names its network with `learn`, then takes steps with `update`.

    Args:
        generator: frozen.
        faces: training photos at the encoders' size.
        pairs: synthetic pairs.
        files: of the loss networks.
        options: of the stage.
        photos: photos a step.
    """

    name: str
    part: str
    """Name of the trained network among the modules."""

    def __init__(
        self,
        generator: MobileGenerator,
        faces: FaceSet,
        pairs: PairSet,
        files: LossFiles,
        options: Options,
        *,
        photos: int,
        seed: int,
        device: str,
    ) -> None:
        super().__init__(generator.family, faces, options, photos=photos, seed=seed, device=device)
        self.pairs = pairs
        self.mean = mean_w(generator).to(device)
        self.generator = Windowed(generator, device)
        self.lpips = LPIPS(files.require("lpips")).to(device).eval().requires_grad_(False)
        self._files = files
        self.pair_batches = Batches(len(pairs), options.batch, seed)

    @functools.cached_property
    def identity(self) -> Identity:
        """The frozen face embedder, loaded by the stages that use it."""
        return Identity(self._files.require("identity")).to(self.device).eval().requires_grad_(False)

    def learn(self, network: nn.Module, groups: list[dict[str, Any]] | None = None) -> None:
        """Names the network that is trained, and its parameters in groups where they have rates of their own."""
        self.network = network.to(self.device)
        self.average = Averaged(network, half_life=self.options.ema_images)
        parameters = groups or network.parameters()
        self.optimizers[self.part] = Adam(parameters, lr=self.options.learning_rate, betas=(0.9, 0.99))

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {self.part: self.network, "average": self.average}

    def update(self, total: Tensor, step: int, images: int) -> None:
        """One optimizer step, its gradient clipped to length 1; `images` were seen in it."""
        descend(total, self.optimizers[self.part], clipped=self.network)
        self.average.update(self.network, (step + 1) * images, images)


def astray(w_plus: Tensor, codes: Tensor, share: float) -> Tensor:
    """Codes B x N x D moved by up to a share of the way to the next one's true code, of `codes` B x D.

    e4e misses photos by more than the synthetic pairs that it was trained on; what starts from its codes is to meet
    such misses in training.
    """
    away = share * torch.rand(len(codes), 1, 1, device=w_plus.device)
    return torch.lerp(w_plus, codes.roll(1, 0)[:, None].expand_as(w_plus), away)


@torch.no_grad()
def statistics(generator: MobileGenerator, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Features of the generator, 64 x C x H x W, and codes of W, 10,000 x D, from which encoders take their scales."""
    source = torch.Generator().manual_seed(seed)
    device = next(generator.parameters()).device
    codes = generator.mapping(torch.randn(10_000, generator.family.style_dim, generator=source).to(device))
    return generator.lower(generator.broadcast(codes[:64]))[0], codes
