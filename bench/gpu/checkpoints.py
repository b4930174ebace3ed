"""Training checkpoints small enough to travel: FP16 averages and what resuming needs, in shards, 60 MB in all.

A stage in progress keeps its weights in FP32 and the optimizers' moments in BF16 while there is room; without room the
moments go (Adam then starts them anew), and at last the weights are FP16 too. A finished stage keeps what later stages
read, in FP16. Networks that a later stage has taken over from the generator's are stored once and put back.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engines.errors import EdgeditError
from training.running import checkpoint

LIMIT = 60_000_000
"""Bytes of all stages together."""
STAGES = ("generator", "e4e", "encoder", "editor")
LEVELS = ("weights and moments", "weights", "weights in FP16")
_TAKEN_OVER = {"e4e": ("encoder", "latent", "average"), "encoder": ("encoder", "average")}
"""Networks that stages b and c start from in the generator's checkpoint, as `<stage>_<name>`, and then have too."""
_LATER = {"e4e": ("average",), "encoder": ("average",), "editor": ("average",)}
"""Networks of a finished stage that later stages and the export read; of the generator's, they read all."""


def pack(run: Path, out: Path, finished: frozenset[str], limit: int = LIMIT) -> dict[str, Any]:
    """Writes `out/<stage>/checkpoint` for every stage of a run folder that has one, and its directions.

    Args:
        run: the run folder.
        out: where to; what is there of these stages is replaced.
        finished: stages that need not be resumed.
        limit: bytes of all stages together.

    Returns:
        By stage its step, bytes and what was kept; of finished stages, "what later stages read".

    Raises:
        EdgeditError: if it does not fit even without the optimizers' moments; what is there stays.
    """
    there = {stage: run / stage / "checkpoint" for stage in STAGES if (run / stage / "checkpoint").exists()}
    loaded = {stage: checkpoint.load(folder) for stage, folder in there.items()}
    for level in range(len(LEVELS)):
        packed = {
            stage: _finished(stage, tensors, set(there)) if stage in finished else _resumable(tensors, level)
            for stage, (tensors, _) in loaded.items()
        }
        if sum(map(_size, packed.values())) <= limit:
            break
    else:
        raise EdgeditError(f"the checkpoints in {run.name} do not fit {limit / 1e6:.0f} MB: they stay where they are")
    report: dict[str, Any] = {}
    for stage, tensors in packed.items():
        meta = dict(loaded[stage][1])
        content = "what later stages read" if stage in finished else LEVELS[level]
        if stage in finished or level:
            # Without tensors there is no state that the step counts could belong to.
            meta["optimizers"] = {name: {**o, "plain": {}} for name, o in meta["optimizers"].items()}
        checkpoint.save(out / stage / "checkpoint", tensors, meta | {"packed": content})
        report[stage] = {"step": int(meta["step"]), "bytes": _size(tensors), "kept": content}
    if (run / "directions").is_dir():
        shutil.copytree(run / "directions", out / "directions", dirs_exist_ok=True)
    return report


def unpack(packed: Path, run: Path) -> list[str]:
    """Puts packed stages into a run folder, except where that has gone further; returns what was put."""
    put = []
    for stage in STAGES:
        if step(packed, stage) <= step(run, stage):
            continue
        tensors, meta = checkpoint.load(packed / stage / "checkpoint")
        if stage == "generator":
            for later, names in _TAKEN_OVER.items():
                if (packed / later / "checkpoint").exists():
                    theirs = checkpoint.load(packed / later / "checkpoint")[0]
                    tensors |= {f"{later}_{name}": t for name, t in theirs.items() if name.split(".")[0] in names}
        checkpoint.save(run / stage / "checkpoint", tensors, meta)
        put.append(stage)
    if (packed / "directions").is_dir() and not (run / "directions").is_dir():
        shutil.copytree(packed / "directions", run / "directions")
    return put


def step(run: Path, stage: str) -> int:
    """The training step that the checkpoint of a stage has reached; 0 if there is none."""
    try:
        return int(checkpoint.load(run / stage / "checkpoint")[1]["step"])
    except FileNotFoundError:
        return 0


def _half(tensor: Tensor, dtype: torch.dtype = torch.float16) -> Tensor:
    return tensor.to(dtype) if tensor.dtype == torch.float32 and tensor.ndim else tensor


def _taken(name: str, there: set[str]) -> bool:
    return any(
        name.startswith(f"{later}_{network}.") for later, n in _TAKEN_OVER.items() if later in there for network in n
    )


def _resumable(tensors: dict[str, Tensor], level: int) -> dict[str, Tensor]:
    state = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            if level == 0:
                state[name] = _half(tensor, torch.bfloat16)
        elif level == 2 or name.split(".")[0].endswith("average"):
            state[name] = _half(tensor)
        else:
            state[name] = tensor
    return state


def _finished(stage: str, tensors: dict[str, Tensor], there: set[str]) -> dict[str, Tensor]:
    names = _LATER.get(stage)
    return {
        name: _half(tensor)
        for name, tensor in tensors.items()
        if not name.startswith("optimizer.")
        and (names is None or name.split(".")[0] in names)
        and not (stage == "generator" and _taken(name, there))
    }


def _size(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
