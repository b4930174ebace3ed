"""Training checkpoints: folders of safetensors shards and one JSON file.

No pickle is written or read. Shards stay below `SHARD_BYTES` so that a checkpoint can travel through tools that
bound the size of a file.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from engines.store import atomic_directory

SHARD_BYTES = 15_000_000


def save(folder: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Writes a checkpoint folder; an existing one of that name is replaced only once the new one is complete."""
    with atomic_directory(folder) as new:
        shard: dict[str, Tensor] = {}
        used = count = 0
        for name in sorted(tensors):
            tensor = tensors[name].detach().cpu().contiguous().clone()
            size = tensor.numel() * tensor.element_size()
            if shard and used + size > SHARD_BYTES:
                save_file(shard, new / f"shard-{count:03d}.safetensors")
                shard, used, count = {}, 0, count + 1
            shard[name] = tensor
            used += size
        save_file(shard, new / f"shard-{count:03d}.safetensors")
        (new / "meta.json").write_text(json.dumps(meta, indent=1))
    # One process saves: what there is of these now was left by one that was killed.
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a checkpoint folder, or the one before it if a save ended between moving that aside and renaming its own.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    if not folder.exists():
        replaced = folder.parent.glob(f".{folder.name}.*.old/meta.json")
        folder = max(replaced, key=lambda meta: meta.stat().st_mtime, default=folder / "meta.json").parent
    if not (folder / "meta.json").is_file():
        raise FileNotFoundError(f"no checkpoint at {folder}")
    try:
        meta = json.loads((folder / "meta.json").read_text())
        tensors: dict[str, Tensor] = {}
        for shard in sorted(folder.glob("shard-*.safetensors")):
            tensors.update(load_file(shard))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"checkpoint {folder} is damaged: {error}") from error
    return tensors, meta


def pack_optimizer(prefix: str, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Splits an optimizer's state into tensors and JSON-able values."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for index, slots in state["state"].items():
        for key, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}.{index}.{key}"] = value
            else:
                plain[f"{index}.{key}"] = value
    groups = [{k: v for k, v in group.items() if not isinstance(v, Tensor)} for group in state["param_groups"]]
    return tensors, {"plain": plain, "groups": groups}


def unpack_optimizer(prefix: str, optimizer: Optimizer, tensors: dict[str, Tensor], packed: dict[str, Any]) -> None:
    """Gives an optimizer the state that `pack_optimizer` took from one over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix + "."):
            index, key = name[len(prefix) + 1 :].split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
    for name, value in packed["plain"].items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": packed["groups"]})


def module_tensors(prefix: str, module: torch.nn.Module) -> dict[str, Tensor]:
    """A module's state under a prefix."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def strip(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under a prefix, without it.

    Raises:
        ValueError: if there are none.
    """
    tensors = {n[len(prefix) + 1 :]: t for n, t in tensors.items() if n.startswith(prefix + ".")}
    if not tensors:
        raise ValueError(f"checkpoint has no tensors named {prefix}.*")
    return tensors
