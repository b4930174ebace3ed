"""What `edgedit export` does; imports torch."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import torch

from edgedit.commands.bundles import Export
from edgedit.commands.common import console
from engines.directions import Direction
from engines.errors import BundleError
from engines.family import ModelFamily, family
from engines.provenance import peak_memory, provenance
from export.build import export_bundle
from training.card import model_card
from training.networks.system import EditingSystem

PLAIN_CARD = "# {name}\n\n{what} weights of family {family}: for trying engines and machines, not for images.\n"


def random_system(chosen: ModelFamily, seed: int = 0) -> EditingSystem:
    """A system with random weights whose editor is not the identity it starts training as."""
    torch.manual_seed(seed)
    system = EditingSystem(chosen).eval().requires_grad_(False)
    for module in (system.ftem, system.editor):
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return system


def export(verb: Export) -> dict[str, Any]:
    """Exports a run, or random weights.

    Raises:
        EdgeditError: if the options do not go together, or the run, a file or the exported graphs will not do.
    """
    if (verb.random is None) == (verb.run_folder is None) or (verb.random is None and verb.data is None):
        raise BundleError("give either a run folder, with --data to verify with, or --random FAMILY")
    if verb.photos < 1:
        raise BundleError(f"--photos must be 1 or more, got {verb.photos}")
    console.print(f"exporting {verb.random or verb.run_folder} to {verb.out}", markup=False)
    metrics = json.loads(verb.metrics.read_text()) if verb.metrics else {}
    if not isinstance(metrics, dict):
        raise BundleError(f"{verb.metrics} is not a JSON object of figures")
    if verb.random is not None:
        chosen = family(verb.random)
        system, directions = random_system(chosen), []
        height, width = chosen.image_shape
        photos = np.random.default_rng(0).integers(0, 256, (verb.photos, height, width, 3), dtype=np.uint8)
        command = f"edgedit export --random {verb.random}"
    else:
        system, directions, photos = _trained(verb)
        chosen = system.family
        command = f"edgedit export RUN --recipe {verb.recipe} --graphs {verb.graphs}"
    if verb.card is not None:
        card = verb.card.read_text()
    elif verb.run_folder is not None and metrics:
        data = verb.data_statement.read_text() if verb.data_statement else "No statement was given."
        card = model_card(verb.run_folder, chosen, verb.recipe, metrics, data=data, device=verb.trained_on)
    else:
        card = PLAIN_CARD.format(name=verb.name, family=chosen.name, what="Random" if verb.random else "Unmeasured")
    started = time.monotonic()
    report = export_bundle(
        system,
        chosen,
        directions,
        photos,
        verb.out,
        name=verb.name,
        card=card,
        licence=verb.licence,
        metrics=metrics,
        graphs=verb.graphs,
        command=command,
        progress=lambda message: console.print(message, markup=False),
    )
    seconds = time.monotonic() - started
    peak = peak_memory()
    used = f"{seconds:.0f} s" + (f" and {peak:.1f} GiB at most" if peak else "")
    console.print(f"wrote {verb.out}: {len(report['graphs'])} graphs, all verified, in {used}", markup=False)
    measured = {"family": chosen.name, "seconds": seconds, "peak_gib": peak, "verification": report}
    return provenance(command) | {"out": str(verb.out)} | measured


def _trained(verb: Export) -> tuple[EditingSystem, list[Direction], np.ndarray]:
    """System, directions and held-out photos of a run."""
    try:
        from training.judges import JudgeFiles
        from training.losses.image import LossFiles
        from training.recipes import recipe
        from training.run import Run, load_run_directions, load_system
    except ModuleNotFoundError as error:
        raise BundleError(f"a training run needs {error.name}: pip install 'edgedit[export,train]'") from error
    assert verb.run_folder is not None and verb.data is not None
    nothing = LossFiles(lpips=verb.run_folder, identity=verb.run_folder)
    run = Run(recipe=recipe(verb.recipe), root=verb.run_folder, data=verb.data, losses=nothing, judges=JudgeFiles())
    return load_system(run), load_run_directions(run), run.faces()[1].images[: verb.photos]
