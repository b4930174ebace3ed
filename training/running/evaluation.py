"""The measurement of a trained run on the photos that no stage has seen."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from engines.store import write
from training.data import FaceSet
from training.losses.lpips import LPIPS
from training.measuring.evaluate import Evaluator, compare_targets
from training.measuring.judges import Judges
from training.running.folder import Run, load_run_directions, load_run_identity, load_system


def _digest(*parts: Any) -> str:
    """A digest of networks and of texts."""
    result = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.nn.Module):
            for tensor in part.state_dict().values():
                result.update(tensor.cpu().contiguous().numpy().tobytes())
        else:
            result.update(str(part).encode())
    return result.hexdigest()


def _once(run: Run, name: str, digest: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A measurement of these networks and photos from the run's folder, or one that is made now and written there."""
    path = run.root / "evaluate" / f"{name}.json"
    if path.exists() and (earlier := json.loads(path.read_text()))["of"] == digest:
        return earlier["value"]
    value = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps({"of": digest, "value": value}, indent=1).encode())
    return value


@torch.no_grad()
def evaluate(run: Run) -> dict[str, Any]:
    """Measures the trained system on the held-out photos, with the weights as a bundle stores them (FP16).

    Each figure is written into the run's folder, in `evaluate/`, as soon as it is there: a measurement that was stopped
    goes on.

    Returns:
        The number of photos and the names of the first and last, PSNR (dB), LPIPS and identity cosine of
        reconstructions, the same with each edit's effect, and each of `TARGETS` beside what was reached.

    Raises:
        ValueError: if a direction that the recipe measures is not there.
        FileNotFoundError: if a stage has not been run.
    """
    system = load_system(run)
    for tensor in (*system.parameters(), *system.buffers()):
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    held_out = run.faces()[1]
    identity, judges, lpips = load_run_identity(run), Judges(run.judges), LPIPS(run.losses.require("lpips")).eval()
    evaluator = Evaluator(system, held_out, lpips, identity, judges, device=run.device)
    inverters = _digest(system.encoder, system.ftem, system.e4e, system.generator, held_out.names)
    reconstruction = _once(run, "reconstruction", inverters, evaluator.reconstruction)
    edited = held_out
    if 0 < run.recipe.edited_photos < len(held_out):
        chosen = np.linspace(0, len(held_out) - 1, run.recipe.edited_photos).astype(int)
        edited = FaceSet(held_out.images[chosen], tuple(held_out.names[i] for i in chosen))
        evaluator = Evaluator(system, edited, lpips, identity, judges, device=run.device)
    directions = {d.name: d for d in load_run_directions(run)}
    if lacking := [name for name, _ in run.recipe.measured if name not in directions]:
        raise ValueError(
            f"the recipe measures edits along {lacking[0]}, which {run.root / 'directions'} lacks; put its file there "
            "(`edgedit import direction`)"
        )
    scored = [name for name in (*judges.names, "male") if name in directions]
    ends = [(name, end) for name in scored for end in (directions[name].max_strength, directions[name].min_strength)]
    whole = _digest(inverters, system.editor, edited.names)
    edits = [
        _once(
            run,
            f"{name}{strength:+g}",
            _digest(whole, directions[name].vector.tobytes(), directions[name].rows),
            functools.partial(evaluator.edit, directions[name], strength, name if name in scored else None),
        )
        for name, strength in run.recipe.measured or ends
    ]
    return {
        "photos": len(held_out),
        "edited_photos": len(edited),
        "first": held_out.names[0],
        "last": held_out.names[-1],
        "size": run.recipe.family.size,
        "reconstruction": reconstruction,
        "edits": edits,
        "targets": compare_targets(reconstruction["ours"], edits),
    }
