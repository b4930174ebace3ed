"""Official StyleCLIP latent mappers -> `LatentMapper`, and the safetensors file that one is kept in.

The official checkpoint holds `state_dict`, with the mapper under `mapper.` beside the generator under `decoder.`, and
the training options `opts`. The three levels are `course_mapping` (sic), `medium_mapping` and `fine_mapping`; one that
was not trained is absent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from engines import tensors
from engines.family import ModelFamily
from training.importers.errors import CheckpointError
from training.importers.ledger import unwrapped
from training.importers.opening import Checkpoint
from training.networks.mapper import LAYERS, LEVELS, LatentMapper

PREFIX = "mapper."
_OFFICIAL = {"coarse": "course_mapping", "medium": "medium_mapping", "fine": "fine_mapping"}
_KIND = "mapper"


@dataclass(frozen=True, kw_only=True)
class AboutMapper:
    """The words and numbers that stand beside a mapper's weights."""

    name: str
    levels: tuple[str, ...]
    style_dim: int
    description: str
    source: str
    licence: str
    min_strength: float
    max_strength: float
    units: str


def import_mapper(checkpoint: Checkpoint, family: ModelFamily) -> LatentMapper:
    """The mapper in an official checkpoint; the generator in it is left out.

    Raises:
        CheckpointError: if there is none, or a tensor of it is missing, unexpected or misshaped; the message names it.
    """
    content = unwrapped(checkpoint.content or {}, checkpoint.path)
    state = content.get("state_dict", content)
    state = unwrapped(state, checkpoint.path) if isinstance(state, dict) else {}
    own = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    if not own:
        raise CheckpointError(f"{checkpoint.path} holds no latent mapper: none of its tensors begins with {PREFIX}")
    if any(name.startswith("mapping.mapping.") for name in own):
        raise CheckpointError(f"{checkpoint.path} is a SingleMapper; only the LevelsMapper is read")
    levels = [level for level, name in _OFFICIAL.items() if any(key.startswith(f"{name}.") for key in own)]
    wanted = {
        f"{_OFFICIAL[level]}.mapping.{layer}.{part}": f"levels.{level}.{layer}.{part}"
        for level in levels
        for layer in range(1, LAYERS + 1)
        for part in ("weight", "bias")
    }
    if stray := sorted(set(own) ^ set(wanted)):
        verb = "misses" if stray[0] in wanted else "has an unexpected"
        raise CheckpointError(f"{checkpoint.path} {verb} {PREFIX}{stray[0]} and is not a complete latent mapper")
    mapper = LatentMapper(family.style_dim, levels)
    shapes = {name: tuple(tensor.shape) for name, tensor in mapper.state_dict().items()}
    for official, name in wanted.items():
        tensor = own[official]
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shapes[name]:
            held = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise CheckpointError(
                f"{checkpoint.path}: {PREFIX}{official} is {held}; family {family.name} takes {shapes[name]}"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{checkpoint.path}: {PREFIX}{official} is not finite")
    mapper.load_state_dict({name: own[official].float() for official, name in wanted.items()})
    return mapper.eval()


def mapper_bytes(mapper: LatentMapper, about: AboutMapper) -> bytes:
    """A safetensors file with the mapper's weights and what is known about it."""
    return tensors.dump({k: v.numpy() for k, v in mapper.state_dict().items()}, _KIND, asdict(about))


def load_mapper(path: Path) -> tuple[LatentMapper, AboutMapper]:
    """Reads what `mapper_bytes` wrote.

    Raises:
        CheckpointError: if it cannot be read or is not that.
    """
    try:
        arrays, metadata = tensors.parse(path.read_bytes(), _KIND)
        about = AboutMapper(**metadata | {"levels": tuple(metadata["levels"])})
        mapper = LatentMapper(about.style_dim, about.levels)
        mapper.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a latent mapper of edgedit's") from error
    return mapper.eval(), about


def rows_of(levels: tuple[str, ...], family: ModelFamily) -> str:
    """The W+ rows that some levels change, in words."""
    spans = [LEVELS[level] for level in levels]
    return ", ".join(f"{first} to {(end or family.w_rows) - 1}" for first, end in spans)
