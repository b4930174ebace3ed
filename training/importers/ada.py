"""StyleGAN2 generators of NVIDIA's PyTorch code under the names and shapes of `training.networks.stylegan2`.

The formulas are the same but for the place of two factors: NVIDIA's FIR kernels sum to 1 and are multiplied by 4 where
they upsample, and demodulated weights are not scaled by their fan-in, which demodulation cancels. Weights are not
flipped: NVIDIA's upsampling convolutions are correlations of the stored kernel too. The bias of a style affine already
includes the 1 that it starts from. NVIDIA's code may also bound activations (to ±256): StyleRes keeps that, a generator
by itself does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from training.importers.errors import CheckpointError
from training.networks.stylegan2 import fir_kernel

MEAN = "mapping.w_avg"

_RESOLUTION = r"(4|8|16|32|64|128|256|512|1024)"
_FC = re.compile(r"mapping\.fc(\d{1,2})\.(weight|bias)")
_LAYER = re.compile(rf"synthesis\.b{_RESOLUTION}\.(conv0|conv1|torgb)\.(.+)")
_FILTER = re.compile(rf"synthesis\.b{_RESOLUTION}\.(?:(conv0|conv1)\.)?resample_filter")
# Name here, and the axes of length 1 that come before and after the others.
_AFFINE = {
    "affine.weight": ("conv.modulation.weight", 0, 0),
    "affine.bias": ("conv.modulation.bias", 0, 0),
    "weight": ("conv.weight", 1, 0),
}
_CONV = {**_AFFINE, "noise_strength": ("noise.weight", 1, 0), "bias": ("activate.bias", 0, 0)}
_RGB = {**_AFFINE, "bias": ("bias", 1, 2)}


def _block(resolution: str) -> int:
    """The number of the block at a resolution: -1 for 4 pixels, 0 for 8, 1 for 16, ..."""
    return int(resolution).bit_length() - 4


def _renamed(name: str) -> tuple[str, int, int] | None:
    """The name here and its new axes before and after; None for what is no part of a generator here."""
    if match := _FC.fullmatch(name):
        return f"style.{int(match[1]) + 1}.{match[2]}", 0, 0
    if name == "synthesis.b4.const":
        return "input.input", 1, 0
    if not (match := _LAYER.fullmatch(name)):
        return None
    block, layer, rest = _block(match[1]), match[2], match[3]
    index = 2 * block + int(layer == "conv1")
    if rest == "noise_const" and layer != "torgb" and index >= -1:
        return f"noises.noise_{index + 1}", 2, 0
    if layer == "torgb":
        module, names = "to_rgb1" if block < 0 else f"to_rgbs.{block}", _RGB
    else:
        module, names = "conv1" if index < 0 else f"convs.{index}", _CONV
    if rest not in names or (layer == "conv0" and block < 0):
        return None
    name, before, after = names[rest]
    return f"{module}.{name}", before, after


def from_ada(tensors: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Splits a generator's tensors, without `MEAN`, into those of `Generator` and the rest under its own names.

    Raises:
        CheckpointError: if it was trained with another FIR filter than [1, 3, 3, 1], or is conditional.
    """
    kernel = fir_kernel()
    collected: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith("mapping.embed."):
            raise CheckpointError(f"{source} is a generator that also takes a class label, which is not supported")
        if match := _FILTER.fullmatch(name):
            if tensor.shape != kernel.shape or not torch.allclose(tensor.float(), kernel, atol=1e-6):
                raise CheckpointError(f"{source} was trained with another FIR filter than [1, 3, 3, 1]: {name}")
            block = _block(match[1])
            # Filters at 4 pixels and in convolutions that do not upsample are there, but not used.
            if block >= 0 and match[2] is None:
                collected[f"to_rgbs.{block}.upsample.kernel"] = kernel * 4
            elif block >= 0 and match[2] == "conv0":
                collected[f"convs.{2 * block}.conv.blur.kernel"] = kernel * 4
        elif renamed := _renamed(name):
            target, before, after = renamed
            collected[target] = tensor.reshape(*([1] * before), *tensor.shape, *([1] * after))
        else:
            rest[name] = tensor
    return collected, rest
