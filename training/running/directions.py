"""A run's directions: fitted to its generator before the editor is trained, and calibrated on photos after it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import torch

from engines.directions import Direction
from engines.store import write
from training.measuring.evaluate import photo_range
from training.measuring.judges import Judges
from training.measuring.sheet import direction_sheet
from training.running.folder import Run, load_run_directions, load_run_identity, load_system
from training.stages.directions import fit, pair_codes, photo_codes
from training.stages.pairs import load_pairs


def _imported_directions(run: Run) -> list[Direction]:
    """Directions in the run's folder that `fit_directions` does not write itself."""
    own = set(run.recipe.directions.attributes)
    files = sorted((run.root / "directions").glob("*.safetensors"))
    return [Direction.load(file) for file in files if file.stem not in own]


def fit_directions(run: Run, seed: int = 0) -> list[Direction]:
    """Fits the recipe's directions to the run's generator, and writes them into the run's folder `directions/`.

    Beside them lie `effects.json`, what each does to each attribute, and `sheet.jpg`, all directions there on
    samples of the generator.

    Returns:
        The directions that were fitted.

    Raises:
        ValueError, FileNotFoundError: as `train_e4e`.
    """
    system = load_system(run, encoder=False, editor=False).to(run.device)
    generator = system.generator
    identity = load_run_identity(run)
    judges, options = Judges(run.judges), run.recipe.directions
    samples, fixed = None, []
    if run.recipe.pairs:
        # Directions that were imported into the run stay, and those that are fitted leave them alone.
        fixed = [d.vector for d in _imported_directions(run) if d.space == "w" and d.rows is None]
        samples = pair_codes(load_pairs(run.root / "pairs"), judges, options)
    elif options.photos:
        samples = photo_codes(system.e4e, generator, system.latent_avg, run.faces()[0], judges, options, seed=seed)
    directions, effects = fit(generator, judges, identity, options, seed=seed, samples=samples, fixed=fixed)
    folder = run.root / "directions"
    folder.mkdir(parents=True, exist_ok=True)
    for direction in directions:
        direction.save(folder / f"{direction.name}.safetensors")
    write(folder / "effects.json", json.dumps(effects, indent=1).encode())
    direction_sheet(generator, system.latent_avg, load_run_directions(run), seed=seed).save(folder / "sheet.jpg")
    return directions


@torch.no_grad()
def calibrate(run: Run, photos: int | None = None) -> dict[str, dict[str, float]]:
    """Sets the range of every direction to the strengths at which edited training photos keep their identity.

    What `fit` found before the editor was trained says how far samples can go; photos go less far, or farther.

    Args:
        photos: how many are edited, spread over the training set: file names may be in order of age. None: as many
            as the recipe says.

    Returns:
        By direction, the range that was written.
    """
    system = load_system(run)
    faces = run.faces()[0]
    (run.root / "directions").mkdir(parents=True, exist_ok=True)
    images = faces.tensor(np.linspace(0, len(faces) - 1, photos or run.recipe.calibrated).astype(int), run.device)
    identity = load_run_identity(run)
    ranges = {}
    for direction in load_run_directions(run):
        low, high = photo_range(system, images, identity, direction, limit=run.recipe.directions.limit)
        ranges[direction.name] = {"min_strength": low, "max_strength": high}
        measured = dataclasses.replace(direction, **ranges[direction.name])
        measured.save(run.root / "directions" / f"{direction.name}.safetensors")
    return ranges
