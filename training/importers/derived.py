"""Tensors that a checkpoint may lack because they can be made: mean code, FIR kernels, noise images, counters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from training.importers.errors import CheckpointError
from training.networks.stylegan2 import EqualLinear, PixelNorm, fir_kernel

SAMPLES = 100_000
"""Codes that a mean is taken over, as many as e4e's and pSp's trainers take."""

_CHUNK = 10_000
_WIDEST, _DEEPEST = 4096, 32
_KERNEL = re.compile(r"(?:.*\.)?(?:blur|upsample)\.kernel")
_NOISE = re.compile(r"(?:.*\.)?noises\.noise_(\d{1,2})")
_COUNTER = "num_batches_tracked"
"""Batch norm's counter plays no part in inference, and files from before torch 0.4.1 lack it."""


@torch.no_grad()
def mean_of_w(tensors: Mapping[str, Tensor], prefix: str, source: str) -> Tensor:
    """The mean of W (D) over `SAMPLES` z from seed 0, by a generator's own mapping network.

    Args:
        tensors: among them the mapping network, `style.1.weight` D x D, `style.1.bias` D, and so on.
        prefix: before these names.
        source: the file, for messages.

    Raises:
        CheckpointError: if there is no whole mapping network.
    """
    first = tensors.get(f"{prefix}style.1.weight")
    width = first.shape[0] if first is not None and first.dim() else 0
    layers: list[EqualLinear] = []
    while (name := f"{prefix}style.{len(layers) + 1}.weight") in tensors:
        weight, bias = tensors[name], tensors.get(name.replace("weight", "bias"))
        fits = bias is not None and weight.shape == (width, width) and bias.shape == (width,)
        # A view may claim more numbers than are stored, and here they are copied.
        if not fits or not (_dense(weight) and _dense(bias)) or width > _WIDEST or len(layers) == _DEEPEST:
            raise CheckpointError(f"{source} has no latent_avg, and no mapping network to take it from: see {name}")
        layers.append(EqualLinear(width, width, lr=0.01, activate=True))
        layers[-1].load_state_dict({"weight": weight, "bias": bias})
    if not layers:
        raise CheckpointError(f"{source} has no latent_avg, the mean code, and no mapping network to take it from")
    mapping = torch.nn.Sequential(PixelNorm(), *layers)
    random = torch.Generator().manual_seed(0)
    total = torch.zeros(width, dtype=torch.float64)
    for _ in range(SAMPLES // _CHUNK):
        total += mapping(torch.randn(_CHUNK, width, generator=random)).double().sum(dim=0)
    return (total / SAMPLES).float()


def _dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.is_floating_point()


def fill_in(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Adds those expected tensors that are missing and constant or arbitrary, and says in words which.

    Official code loads files without them too. Noise images are drawn from the seed that is their number.

    Args:
        tensors: named as in the network.
        expected: the network's state dict; only shapes and types are read.
    """
    filled: Counter[str] = Counter()
    for name, other in expected.items():
        if name in tensors:
            continue
        if name.endswith(_COUNTER):
            tensors[name] = torch.zeros(other.shape, dtype=other.dtype)
            filled["batch-norm counters: {} set to zero; inference does without them"] += 1
        elif _KERNEL.fullmatch(name):
            tensors[name] = fir_kernel(gain=4.0)
            filled["FIR kernels: {} of [1, 3, 3, 1]"] += 1
        elif match := _NOISE.fullmatch(name):
            tensors[name] = torch.randn(other.shape, generator=torch.Generator().manual_seed(int(match[1])))
            filled["noise images: {} drawn from fixed seeds"] += 1
    return [words.format(count) for words, count in filled.items()]
