"""The model family that tensors belong to, from their names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from engines.family import CARS_512, FACES_1024, EditorArchitecture, ModelFamily
from training.importers.errors import CheckpointError

_ROSINALITY = re.compile(r"(?:.*\.)?to_rgbs\.(\d)\.bias")
_ADA = re.compile(r"(?:.*\.)?synthesis\.b(\d{1,4})\.torgb\.bias")
_LARGEST = 1024


def generator_size(names: Iterable[str]) -> int | None:
    """Side of the images of the generator among these tensors, in pixels; None if there is none."""
    sizes = [0]
    for name in names:
        if match := _ROSINALITY.fullmatch(name):
            sizes.append(8 << int(match[1]))
        elif match := _ADA.fullmatch(name):
            sizes.append(int(match[1]))
    return max(sizes) or None


def derive(tensors: Mapping[str, Tensor], source: str, *, cars: bool) -> ModelFamily:
    """The family of a method's tensors, named as here: one of the known ones if it fits, else made up from the sizes.

    Args:
        tensors: with one generator, and at most one encoder whose stem is `input_layer` or `conv`.
        source: how messages call it.
        cars: take 512 pixels for cars, of which 384 rows are kept.

    Raises:
        CheckpointError: if the generator is incomplete or not one of StyleGAN2's shapes.
    """
    sized = {match[1]: match[0] for name in tensors if (match := re.fullmatch(r"(.*\.)to_rgb1\.bias", name))}
    if len(sized) != 1 or not (size := generator_size(tensors)):
        raise CheckpointError(f"{source} has no complete generator")
    (prefix,) = sized
    if not 16 <= size <= _LARGEST:
        raise CheckpointError(f"{source} renders {size} pixels; generators of 16 to {_LARGEST} pixels are supported")
    try:
        widths = {4: tensors[f"{prefix}conv1.conv.weight"].shape[1]}
        for index in range(int(math.log2(size)) - 2):
            widths[8 << index] = tensors[f"{prefix}convs.{2 * index + 1}.conv.weight"].shape[1]
        style_dim = tensors[f"{prefix}style.1.weight"].shape[0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{source} has no complete generator: {error} is missing or misshaped") from error
    widest = max(widths.values())
    # In the narrowest case every width is the widest one, and any base from there on says the same.
    bases = (FACES_1024.channel_base, widths[size] * size)
    base = next((b for b in bases if all(w == min(widest, b // r) for r, w in widths.items())), None)
    if base is None:
        raise CheckpointError(f"{source} has channels {list(widths.values())}, which is not a StyleGAN2 of any width")
    encoder = _encoder(tensors)
    made = {
        "size": size,
        "style_dim": style_dim,
        "mapping_layers": sum(name.startswith(f"{prefix}style.") and name.endswith(".weight") for name in tensors),
        "channel_base": base,
        "channel_max": widest,
        "head_width": encoder.get("head_width", style_dim),
        "encoder_width": encoder.get("encoder_width", FACES_1024.encoder_width),
    }
    longer = encoder.get("longer", max(FACES_1024.encoder_size))
    for known in (FACES_1024, CARS_512) if cars else (FACES_1024,):
        if max(known.encoder_size) == longer and all(getattr(known, key) == value for key, value in made.items()):
            return known
    feature = max(8, min(longer // 4, size // 2))
    heads = math.gcd(EditorArchitecture().heads, min(widest, base // feature))
    try:
        return ModelFamily(
            name=f"square-{size}",
            encoder_size=(longer, longer),
            feature_resolution=feature,
            editor=EditorArchitecture(heads=heads, window=min(EditorArchitecture().window, feature)),
            **made,
        )
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from error


def _encoder(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Widths, and the longer side of the input, as far as an encoder's tensors show them."""
    widths: dict[str, int] = {}
    halvings = 0
    for name, tensor in tensors.items():
        if re.fullmatch(r"(.*\.)?(input_layer|fs_backbone\.conv|encoder\.conv)\.0\.weight", name) and tensor.dim() == 4:
            widths["encoder_width"] = tensor.shape[0]
        elif name.endswith("latlayer1.weight"):
            widths["head_width"] = tensor.shape[0]
        elif re.fullmatch(r"(.*\.)?styles\.0\.convs\.\d\.weight", name):
            halvings += 1
        elif re.fullmatch(r"hypernet\.refinement_blocks\.0\.convs\.[2-9]\.weight", name):
            halvings += 1
    if halvings:
        # Both end at one pixel, from a map at 1/16 of the input.
        widths["longer"] = 16 << min(halvings, 8)
    return widths


def check_resolution(own: ModelFamily, wanted: ModelFamily, source: str) -> None:
    """Refuses a checkpoint of another resolution than that of the family that is asked for.

    Raises:
        CheckpointError: naming both resolutions.
    """
    if own.size != wanted.size:
        raise CheckpointError(
            f"{source} is of another resolution: it renders {own.size} pixels, and {wanted.name} has {wanted.size}; "
            f"leave --family out or give the right one"
        )
