"""The measurement of a trained run on the photos that no stage has seen."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from engines.store import write
from training.losses.lpips import LPIPS
from training.measuring.evaluate import WAYS, Evaluator, compare_targets
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


def _earlier(path: Path, digest: str) -> dict[str, Any] | None:
    """A measurement that was written for these networks and photos, or None."""
    if path.exists() and (earlier := json.loads(path.read_text()))["of"] == digest:
        return earlier["value"]
    return None


def _keep(path: Path, digest: str, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps({"of": digest, "value": value}, indent=1).encode())


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
    folder = run.root / "evaluate"
    reconstruction = _earlier(folder / "reconstruction.json", inverters)
    if reconstruction is None:
        reconstruction = evaluator.reconstruction()
        _keep(folder / "reconstruction.json", inverters, reconstruction)
    directions = {d.name: d for d in load_run_directions(run)}
    if lacking := [name for name, _ in run.recipe.measured if name not in directions]:
        raise ValueError(
            f"the recipe measures edits along {lacking[0]}, which {run.root / 'directions'} lacks; put its file there "
            "(`edgedit import direction`)"
        )
    scored = [name for name in (*judges.names, "male") if name in directions]
    ends = [(name, end) for name in scored for end in (directions[name].max_strength, directions[name].min_strength)]
    edits: list[dict[str, Any]] = []
    for name, strength in run.recipe.measured or ends:
        direction, attribute = directions[name], name if name in scored else None
        shared = _digest(inverters, held_out.names, direction.vector.tobytes(), direction.rows)
        # Linear editing knows no editor: its figures hold while the editor is trained on.
        digests = {way: _digest(shared, system.editor) if way == "ours" else shared for way in WAYS}
        paths = {way: folder / f"{name}{strength:+g} {way}.json" for way in WAYS}
        values = {way: _earlier(paths[way], digests[way]) for way in WAYS}
        lacking = [way for way in WAYS if values[way] is None]
        if lacking:
            values |= evaluator.edit(direction, strength, attribute, lacking)
            for way in lacking:
                _keep(paths[way], digests[way], values[way])
        edits.append({"direction": name, "strength": strength, "attribute": attribute, **values})
    return {
        "photos": len(held_out),
        "edited_photos": len(held_out),
        "first": held_out.names[0],
        "last": held_out.names[-1],
        "size": run.recipe.family.size,
        "reconstruction": reconstruction,
        "edits": edits,
        "targets": compare_targets(reconstruction["ours"], edits),
    }
