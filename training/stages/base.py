"""The common part of the stages: photos in batches, optimizers by name, and the settings that a checkpoint keeps."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from engines.family import ModelFamily
from training.data import Batches, FaceSet, as_photos
from training.stages.augment import random_flip
from training.stages.protocol import StageOptions

Options = TypeVar("Options", bound=StageOptions)


class TrainingStage(Generic[Options]):
    """A stage that learns from photos; a subclass makes its networks, and puts their optimizers into `optimizers`.

    Args:
        faces: training photos.
        options: settings of the stage.
        photos: photos a step; None: the options' batch.
        seed: torch is seeded with it, so that networks made afterwards are the same ones each time.
    """

    def __init__(
        self,
        family: ModelFamily,
        faces: FaceSet,
        options: Options,
        *,
        seed: int,
        device: str,
        photos: int | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.family, self.faces, self.options, self.device = family, faces, options, device
        self.batches = Batches(len(faces), options.batch if photos is None else photos, seed, faces.shares)
        self.optimizers: dict[str, Optimizer] = {}

    def config(self) -> dict[str, Any]:
        return {"family": self.family.to_dict(), "options": asdict(self.options)}

    def photos(self, step: int) -> Tensor:
        """The photos of a step, some of them mirrored: B x 3 x h x w in [-1, 1]."""
        return random_flip(self.faces.tensor(self.batches.indices(step), self.device))

    def autocast(self) -> torch.autocast:
        """Networks in bfloat16, where the options say so."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.options.bf16)

    def as_photos(self, rendered: Tensor) -> Tensor:
        """Pictures of the generator as the stage's photos are (see `training.data.as_photos`)."""
        return as_photos(rendered, self.family, self.faces.size)
