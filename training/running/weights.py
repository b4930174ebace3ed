"""Trained modules read back from the runs of earlier stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from engines.bundle import Bundle
from engines.family import ModelFamily
from training.methods import METHODS, from_bundle
from training.methods.paper import EditingSystem
from training.networks.discriminator import Discriminator
from training.networks.stylegan2 import Generator
from training.running import checkpoint


def load_module(run: Path, stage: str, name: str, module: nn.Module) -> dict[str, Any]:
    """Loads one module of a stage's checkpoint into `module`.

    Args:
        run: the stage's run folder.
        stage: the stage the checkpoint must belong to.
        name: prefix in the checkpoint, e.g. "average.module" for averaged weights.

    Returns:
        The checkpoint's meta data.

    Raises:
        FileNotFoundError: if the run holds no checkpoint.
        ValueError: if it belongs to another stage or its tensors do not fit.
    """
    tensors, meta = checkpoint.load(run / "checkpoint")
    if meta["stage"] != stage:
        raise ValueError(f"{run} holds a checkpoint of stage {meta['stage']!r}, not {stage!r}")
    try:
        module.load_state_dict(checkpoint.strip(name, tensors))
    except RuntimeError as error:
        raise ValueError(
            f"the {name} of {run} does not fit this model family: {str(error).splitlines()[-1]}"
        ) from error
    return meta


def load_generator(run: Path, family: ModelFamily) -> Generator:
    """The averaged generator of a generator run, frozen."""
    generator = Generator(family)
    load_module(run, "generator", "average.module", generator)
    generator.input.to(memory_format=torch.channels_last)
    return generator.eval().requires_grad_(False)


def load_discriminator(run: Path, family: ModelFamily) -> Discriminator:
    """The discriminator of a generator run, trainable."""
    discriminator = Discriminator(family)
    load_module(run, "generator", "discriminator", discriminator)
    return discriminator.to(memory_format=torch.channels_last)


def load_bundle(path: Path, family: ModelFamily) -> EditingSystem:
    """The networks of a bundle, to train on from.

    Raises:
        BundleError: if it is not a bundle, or damaged.
        ValueError: if it is of another family.
    """
    bundle = Bundle.load(path)
    if METHODS.get(bundle.method) is not EditingSystem:
        raise ValueError(f"{path} holds the networks of {bundle.method}, which are not trained here")
    if bundle.family != family:
        raise ValueError(f"{path} holds family {bundle.family.name}, which is not the {family.name} that is trained")
    system = from_bundle(bundle)
    assert isinstance(system, EditingSystem)
    return system
