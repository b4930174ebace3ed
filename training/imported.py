"""Imported weights: one safetensors file per network that says what it is, where it came from and what one may do.

Metadata of the file, all of it text: `format`, `kind` (the network), `family` (JSON, empty for a backbone), `licence`,
and `sources` (JSON: role, file name, bytes and SHA-256 of what it was imported from).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engines.errors import OutputError, first_line
from engines.family import ModelFamily
from engines.store import atomic_file
from training.networks import build
from training.networks.mobilestylegan import MobileGenerator
from training.networks.stylegan2 import Generator

FORMAT = "edgedit imported weights 1"
GENERATOR = "stylegan2"
MOBILE = "mobilestylegan"
GENERATORS = (GENERATOR, MOBILE)
"""The kinds of files with a generator (`generator.*`) and its mean code (`latent_avg`, D)."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The content of one file."""

    kind: str
    """A method of `training.methods`, one of `GENERATORS`, or the name of a backbone."""
    family: ModelFamily | None
    """The family; None for a backbone, which any family with its widths can start from."""
    licence: str
    sources: list[dict[str, Any]]
    tensors: dict[str, Tensor]


def write(path: Path, imported: Imported) -> None:
    """Writes the file whole or not at all.

    Raises:
        OutputError: if it cannot be written; what was at `path` is then unchanged.
    """
    metadata = {
        "format": FORMAT,
        "kind": imported.kind,
        "family": json.dumps(imported.family.to_dict()) if imported.family else "",
        "licence": imported.licence,
        "sources": json.dumps(imported.sources),
    }
    # Not by `engines.store.write`, which would hold more than a gigabyte a second time.
    try:
        with atomic_file(path) as temporary:
            save_file(imported.tensors, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error


def read(path: str | Path) -> Imported:
    """Reads a file back.

    Raises:
        ValueError: if it is not one of imported weights, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} does not hold imported weights; make them with `edgedit import weights`")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        family = metadata["family"]
        return Imported(
            kind=metadata["kind"],
            family=ModelFamily.from_dict(json.loads(family)) if family else None,
            licence=metadata["licence"],
            sources=json.loads(metadata["sources"]),
            tensors=tensors,
        )
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read as imported weights: {first_line(error)}") from error


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Loads tensors into a module that has exactly these.

    Raises:
        ValueError: with the first name that does not fit.
    """
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit: {str(error).splitlines()[-1].strip()}") from error


def load_generator(path: str | Path) -> tuple[Generator | MobileGenerator, Tensor]:
    """An imported generator, frozen, and its mean code (D).

    Raises:
        ValueError: if the file holds something else, or does not fit.
    """
    imported = read(path)
    if imported.kind not in GENERATORS or imported.family is None or "latent_avg" not in imported.tensors:
        raise ValueError(f"{path} holds {imported.kind}, not a generator; import one of {', '.join(GENERATORS)}")
    mean = imported.tensors.pop("latent_avg")
    generator = build.generator(imported.family)
    fill(generator, {name.removeprefix("generator."): tensor for name, tensor in imported.tensors.items()}, path)
    return generator.eval().requires_grad_(False), mean


def load_backbone(path: str | Path, encoder: nn.Module) -> None:
    """Starts an encoder from an imported ArcFace backbone: its trunk is loaded, its heads stay as they are.

    Raises:
        ValueError: if the file holds no backbone, or that of another encoder.
    """
    imported = read(path)
    if imported.family is not None:
        raise ValueError(f"{path} holds {imported.kind}, not a backbone")
    state = encoder.state_dict()
    for name, tensor in imported.tensors.items():
        if name not in state or state[name].shape != tensor.shape:
            raise ValueError(f"the backbone {imported.kind} in {path} is not this encoder's: {name} does not fit")
    encoder.load_state_dict(imported.tensors, strict=False)
