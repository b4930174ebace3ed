"""Trained modules read back from the runs of earlier stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from engines.bundle import WEIGHTS_FILE, Bundle
from engines.contracts import OURS
from engines.family import ModelFamily
from training import checkpoint
from training.networks.discriminator import Discriminator
from training.networks.stylegan2 import Generator
from training.networks.system import EditingSystem


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
    if bundle.method != OURS:
        raise ValueError(f"{path} holds the networks of {bundle.method}, which are not trained here")
    if bundle.family != family:
        raise ValueError(f"{path} holds family {bundle.family.name}, which is not the {family.name} that is trained")
    system = EditingSystem(family)
    fill_from_bundle(system, bundle)
    return system


def fill_from_bundle(network: nn.Module, bundle: Bundle) -> None:
    """Gives a network the weights of a bundle, FP16 values as FP32.

    Raises:
        BundleError: if the weights file is damaged.
        ValueError: if they are not those of the network.
    """
    tensors = {name: tensor.float() for name, tensor in load(bundle.read(WEIGHTS_FILE)).items()}
    try:
        missing, unexpected = network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # a tensor of another shape
        raise ValueError(f"the weights of {bundle.path} do not fit: {str(error).splitlines()[-1].strip()}") from error
    if lost := [name for name in missing if not name.endswith("num_batches_tracked")] + unexpected:
        raise ValueError(f"the weights of {bundle.path} do not fit family {bundle.family.name}: {lost[0]}")


@torch.no_grad()
def mean_w(generator: Generator, samples: int = 20_000, seed: int = 0) -> Tensor:
    """The mean W code (D), from `samples` mapped draws: the latent average encoders start from."""
    device = generator.input.input.device
    source = torch.Generator().manual_seed(seed)
    z = torch.randn(samples, generator.family.style_dim, generator=source).to(device)
    return torch.cat([generator.mapping(part) for part in z.split(4096)]).mean(dim=0)
