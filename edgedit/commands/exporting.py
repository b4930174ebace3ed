"""What `edgedit export` does; imports torch."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgedit.commands.bundles import Export
from edgedit.commands.common import console
from engines.bundle import Bundle
from engines.bundle.completion import leave_out_generator, require_package
from engines.bundle.provenance import peak_memory, provenance
from engines.contracts import OURS
from engines.directions import Direction
from engines.errors import BundleError
from engines.family import ModelFamily, family
from export.build import export_bundle
from export.random_weights import random_weights
from export.weights import half_weights
from training import imported
from training.card import model_card
from training.networks.light import LightE4EEncoder, LightFeatureStyleEncoder
from training.networks.system import EditingSystem
from training.peers import create, load
from training.peers import method as find_method
from training.peers.protocol import Peer

OWN_LICENCE = "Apache-2.0"
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


@torch.no_grad()
def spread(system: EditingSystem) -> None:
    """Lets light encoders give features and codes of the kind that the system's generator has, others for each photo,
    so that what a graph computes is as large as in a trained system."""
    generator, encoder, e4e = system.generator, system.encoder, system.e4e
    assert isinstance(encoder, LightFeatureStyleEncoder) and isinstance(e4e, LightE4EEncoder)
    source = torch.Generator().manual_seed(0)
    codes = generator.mapping(torch.randn(1000, system.family.style_dim, generator=source))
    features, _ = generator.lower(generator.broadcast(codes[:4]), with_rgb=False)
    encoder.set_statistics(features, codes)
    e4e.set_statistics(codes)
    for layer in (*encoder.styles, e4e.linear):
        assert isinstance(layer, torch.nn.Linear)
        layer.weight.normal_(std=0.02, generator=source)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What is exported."""

    network: EditingSystem | Peer
    directions: list[Direction]
    photos: np.ndarray
    licence: str
    what: str
    """Of the weights, for the card."""
    command: str
    """Without paths of this machine."""


def export(verb: Export) -> dict[str, Any]:
    """Exports a run, imported weights or random ones.

    Raises:
        EdgeditError: if the options do not go together, or the run, a file or the exported graphs will not do.
        ValueError: if there is no such method, or it does not exist for the family.
    """
    source = _source(verb)
    network, chosen = source.network, source.network.family
    method = OURS if isinstance(network, EditingSystem) else network.info.key
    name = verb.name or ("demo" if method == OURS else method)
    if verb.without_generator:
        # Before the export, which takes minutes.
        require_package({name: tensor.numpy() for name, tensor in half_weights(network).tensors.items()})
    metrics = json.loads(verb.metrics.read_text()) if verb.metrics else {}
    if not isinstance(metrics, dict):
        raise BundleError(f"{verb.metrics} is not a JSON object of figures")
    if verb.card is not None:
        card = verb.card.read_text()
    elif verb.run_folder is not None and metrics:
        data = verb.data_statement.read_text() if verb.data_statement else "No statement was given."
        card = model_card(verb.run_folder, chosen, verb.recipe, metrics, data=data, device=verb.trained_on)
    else:
        card = PLAIN_CARD.format(name=name, family=chosen.name, what=source.what)
    started = time.monotonic()
    report = export_bundle(
        network,
        chosen,
        source.directions,
        source.photos,
        verb.out,
        name=name,
        card=card,
        licence=verb.licence or source.licence,
        metrics=metrics,
        graphs=verb.graphs,
        command=source.command,
        progress=lambda message: console.print(message, markup=False),
    )
    if verb.without_generator:
        leave_out_generator(Bundle.load(verb.out))
    seconds = time.monotonic() - started
    peak = peak_memory()
    used = f"{seconds:.0f} s" + (f" and {peak:.1f} GiB at most" if peak else "")
    console.print(f"wrote {verb.out}: {len(report['graphs'])} graphs, all verified, in {used}", markup=False)
    measured = {"method": method, "family": chosen.name, "seconds": seconds, "peak_gib": peak, "verification": report}
    return provenance(source.command) | {"out": str(verb.out)} | measured


def _source(verb: Export) -> _Source:
    given = [item for item in (verb.run_folder, verb.weights, verb.random) if item is not None]
    if len(given) != 1 or (verb.run_folder is not None and verb.data is None):
        raise BundleError(
            "give either a run folder, with --data to verify with, or --random FAMILY, or --weights of another method"
        )
    if verb.photos < 1:
        raise BundleError(f"--photos must be 1 or more, got {verb.photos}")
    console.print(f"exporting {given[0]} to {verb.out}", markup=False)
    if verb.run_folder is not None:
        if verb.method not in (None, OURS):
            raise BundleError(f"a training run is of method {OURS}; give --weights or --random for {verb.method}")
        system, directions, photos = _trained(verb)
        command = f"edgedit export RUN --recipe {verb.recipe} --graphs {verb.graphs}"
        command += " --generator GENERATOR" if verb.generator is not None else ""
        command += " --without-generator" if verb.without_generator else ""
        return _Source(
            network=system,
            directions=directions,
            photos=photos,
            licence=OWN_LICENCE if verb.generator is None else imported.read(verb.generator).licence,
            what="Unmeasured",
            command=command,
        )
    network, licence, what = _imported(verb) if verb.weights is not None else _random(verb)
    height, width = network.family.image_shape
    photos = np.random.default_rng(0).integers(0, 256, (verb.photos, height, width, 3), dtype=np.uint8)
    words = ["edgedit export", *([f"--method {verb.method}"] if verb.method else [])]
    words += ["--weights WEIGHTS" if verb.weights is not None else f"--random {verb.random}"]
    return _Source(network=network, directions=[], photos=photos, licence=licence, what=what, command=" ".join(words))


def _random(verb: Export) -> tuple[EditingSystem | Peer, str, str]:
    assert verb.random is not None
    chosen = family(verb.random)
    if verb.method in (None, OURS):
        system = random_system(chosen)
        if verb.generator is None:
            return system, OWN_LICENCE, "Random"
        from training.folder import require_generator

        generator, mean = imported.load_generator(verb.generator)
        require_generator(generator.family, chosen, verb.generator)
        system.generator = generator
        system.latent_avg.copy_(mean)
        if chosen.encoder == "light":
            spread(system)
        return system, imported.read(verb.generator).licence, "An imported generator's and otherwise random"
    kind = verb.method
    return random_weights(lambda: create(kind, chosen)), OWN_LICENCE, f"Random {find_method(kind).info.title}"


def _imported(verb: Export) -> tuple[Peer, str, str]:
    assert verb.weights is not None
    peer = load(verb.weights)
    if verb.method not in (None, peer.info.key):
        raise BundleError(f"{verb.weights} holds method {peer.info.key}, not {verb.method}; leave --method out")
    return peer, peer.info.licence, f"Imported {peer.info.title}"


def _trained(verb: Export) -> tuple[EditingSystem, list[Direction], np.ndarray]:
    """System, directions and held-out photos of a run."""
    try:
        from training.folder import Run, load_run_directions, load_system
        from training.judges import JudgeFiles
        from training.losses.image import LossFiles
        from training.recipes import recipe
    except ModuleNotFoundError as error:
        raise BundleError(f"a training run needs {error.name}: pip install 'edgedit[export,train]'") from error
    assert verb.run_folder is not None and verb.data is not None
    nothing = LossFiles(lpips=verb.run_folder, identity=verb.run_folder)
    run = Run(
        recipe=recipe(verb.recipe),
        root=verb.run_folder,
        data=verb.data,
        losses=nothing,
        judges=JudgeFiles(),
        start=verb.start,
        generator=verb.generator,
    )
    system, directions = load_system(run), load_run_directions(run)
    # Enlarged by repeating pixels: the encoders' averages are then those of the photos that the run was trained with.
    height, width = run.recipe.family.image_shape
    photos = run.faces()[1].images[: verb.photos]
    rows, columns = (np.arange(n) * m // n for n, m in ((height, photos.shape[1]), (width, photos.shape[2])))
    return system, directions, photos[:, rows][:, :, columns]
