"""The contract of stages: settings, what the loop that runs them calls, and an averaged copy of what they train."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training import parallel


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """The settings that every stage has."""

    batch: int
    """Images a step, in each process."""
    learning_rate: float
    ema_images: float = 5_000.0
    """Half-life of the averaged network, in images."""
    bf16: bool = False
    """Networks in bfloat16 (autocast): faster on CPUs and GPUs that have it; weights stay in FP32."""


class Stage(Protocol):
    """A training stage, as the loop runs it."""

    @property
    def name(self) -> str: ...

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules that a checkpoint must hold by name, averaged copies included."""
        ...

    @property
    def optimizers(self) -> dict[str, Optimizer]: ...

    def step(self, step: int) -> dict[str, float | Tensor]:
        """One optimizer step; returns scalars for the log."""
        ...

    def grid(self) -> Tensor:
        """Sample images R x C x 3 x H x W in [-1, 1]."""
        ...

    def config(self) -> dict[str, Any]:
        """JSON-able settings, kept in the checkpoint; the `family` among them is compared when resuming."""
        ...


class Averaged(nn.Module):
    """Exponential moving average of a module's parameters; buffers are copied.

    `half_life` is in images; the average starts short and lengthens with the images seen (`ramp`), so that early
    weights are forgotten.
    """

    def __init__(self, source: nn.Module, *, half_life: float, ramp: float = 0.05) -> None:
        super().__init__()
        self.module = copy.deepcopy(source).eval().requires_grad_(False)
        self.half_life = half_life
        self.ramp = ramp

    # By hand: AveragedModel of torch 2.13 has one fixed decay, and its `n_averaged` refuses the checkpoints there are.
    @torch.no_grad()
    def update(self, source: nn.Module, images: int, batch: int) -> None:
        """Moves the average towards `source` after this process has trained on `images` in steps of `batch`."""
        together = parallel.processes()
        half_life = max(min(self.half_life, images * together * self.ramp), 1e-8)
        keep = 0.5 ** (batch * together / half_life)
        for mine, theirs in zip(self.module.parameters(), source.parameters(), strict=True):
            mine.lerp_(theirs, 1.0 - keep)
        for mine, theirs in zip(self.module.buffers(), source.buffers(), strict=True):
            mine.copy_(theirs)


def descend(loss: Tensor, *optimizers: Optimizer | None, clipped: nn.Module | None = None) -> None:
    """One step of the optimizers, those that are there, down the gradient of a loss.

    The gradient of `clipped` is brought to length 1 where it is longer.
    """
    there = [optimizer for optimizer in optimizers if optimizer is not None]
    for optimizer in there:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if clipped is not None:
        nn.utils.clip_grad_norm_(clipped.parameters(), 1.0)
    for optimizer in there:
        optimizer.step()


def set_requires_grad(modules: Iterable[nn.Module], value: bool) -> None:
    """Switches gradients of all parameters of the modules."""
    for module in modules:
        module.requires_grad_(value)
