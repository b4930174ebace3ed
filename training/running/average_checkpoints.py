"""The mean of the averaged networks of several checkpoints of one stage.

    python -m training.running.average_checkpoints E/first:0.5 E/checkpoint:0.5 --out E/mean

Checkpoints that descend from the same weights lie in one basin, where the mean of their weights fits unseen images
better than each of them ("model soups", Wortsman et al., 2022). All else, step and optimizers included, is the last
one's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from training.running import checkpoint


@dataclass(frozen=True)
class Options:
    """Average the networks of several checkpoints of one stage."""

    checkpoints: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Checkpoint folders, each with its share: FOLDER:SHARE."""
    out: Path
    """The checkpoint folder to write; one of that name is replaced."""


def mean(parts: Sequence[tuple[Path, float]], out: Path) -> int:
    """Writes a checkpoint whose averaged networks are the mean of several checkpoints'.

    Args:
        parts: checkpoint folders and their shares, which sum to 1.
        out: the checkpoint folder to write; one of that name is replaced.

    Returns:
        The number of tensors that were averaged. Integers, such as a BatchNorm's count of batches, are the last one's.

    Raises:
        FileNotFoundError: if one is missing.
        ValueError: if one is damaged, they are not of one stage and family, or the shares do not sum to 1.
    """
    if not parts or not math.isclose(sum(share for _, share in parts), 1.0, abs_tol=1e-6):
        raise ValueError("the shares of the checkpoints do not sum to 1")
    *others, (last, share) = parts
    tensors, meta = checkpoint.load(last)
    names = [n for n, t in tensors.items() if _averaged(n) and t.is_floating_point()]
    if not names:
        raise ValueError(f"checkpoint {last} holds no averaged network")
    sums = {name: share * tensors[name].double() for name in names}
    for folder, share in others:
        add, other = checkpoint.load(folder)
        if (other["stage"], other["config"]["family"]) != (meta["stage"], meta["config"]["family"]):
            raise ValueError(f"checkpoint {folder} is of another stage or family than {last}")
        if strange := [n for n in names if n not in add or add[n].shape != tensors[n].shape]:
            raise ValueError(f"checkpoint {folder} lacks {strange[0]}, or has it in another shape")
        for name in names:
            sums[name] += share * add[name].double()
    checkpoint.save(out, tensors | {name: total.to(tensors[name].dtype) for name, total in sums.items()}, meta)
    return len(names)


def _averaged(name: str) -> bool:
    """True of a tensor of a network that is averaged by `training.stages.protocol.Averaged`."""
    return name.partition(".")[0].endswith("average")


def _part(text: str) -> tuple[Path, float]:
    folder, _, share = text.rpartition(":")
    try:
        return Path(folder), float(share)
    except ValueError:
        raise ValueError(f"{text} is not FOLDER:SHARE") from None


def main() -> None:
    """Runs the command line."""
    options = tyro.cli(Options, prog="python -m training.running.average_checkpoints")
    try:
        with torch.no_grad():
            count = mean([_part(text) for text in options.checkpoints], options.out)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"wrote {options.out}: the mean of {count} tensors")


if __name__ == "__main__":
    main()
