"""What is exported: a training run, imported weights of a method of Table 5, or random ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from engines.contracts import OURS
from engines.directions import Direction
from engines.errors import BundleError
from engines.family import ModelFamily
from engines.family import family as find_family
from export.random_weights import random_weights
from training import imported
from training.networks.light import LightE4EEncoder, LightFeatureStyleEncoder
from training.networks.system import EditingSystem
from training.peers import create, load
from training.peers import method as find_method
from training.peers.protocol import Peer

OWN_LICENCE = "Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network and what goes into its bundle beside it."""

    network: EditingSystem | Peer
    licence: str
    what: str
    """Of the weights, for the card."""
    directions: list[Direction] = field(default_factory=list)

    @property
    def method(self) -> str:
        """As the bundle names it."""
        return OURS if isinstance(self.network, EditingSystem) else self.network.info.key

    @property
    def family(self) -> ModelFamily:
        return self.network.family


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


def random_model(family: str, method: str | None = None, generator: Path | None = None) -> Model:
    """Random weights of a family, to try engines and machines with.

    Args:
        family: its name.
        method: of the paper's Table 5; None or "ours": ours.
        generator: an imported one to use, in ours.

    Raises:
        ValueError: if there is no such family or method, or the generator is not of the family.
    """
    chosen = find_family(family)
    if method not in (None, OURS):
        network = random_weights(lambda: create(method, chosen))
        return Model(network=network, licence=OWN_LICENCE, what=f"Random {find_method(method).info.title}")
    system = random_system(chosen)
    if generator is None:
        return Model(network=system, licence=OWN_LICENCE, what="Random")
    from training.folder import require_generator

    own, mean = imported.load_generator(generator)
    require_generator(own.family, chosen, generator)
    system.generator = own
    system.latent_avg.copy_(mean)
    if chosen.encoder == "light":
        spread(system)
    what = "An imported generator's and otherwise random"
    return Model(network=system, licence=imported.read(generator).licence, what=what)


def imported_model(weights: Path, method: str | None = None) -> Model:
    """The weights of a method, from a file that `edgedit import weights` wrote.

    Raises:
        BundleError: if they are of another method than is named.
        ValueError: if the file does not hold a method's weights.
    """
    peer = load(weights)
    if method not in (None, peer.info.key):
        raise BundleError(f"{weights} holds method {peer.info.key}, not {method}; leave --method out")
    return Model(network=peer, licence=peer.info.licence, what=f"Imported {peer.info.title}")


def trained_model(
    run: Path,
    faces: Path,
    *,
    recipe: str,
    max_faces: int,
    from_bundle: Path | None = None,
    generator: Path | None = None,
) -> tuple[Model, np.ndarray]:
    """A training run, and photos to verify it with: uint8 M x h x w x 3, the first of those that no stage has seen.

    Args:
        run: its folder.
        faces: the photos it was trained on.
        recipe: its recipe.
        max_faces: how many photos at most.
        from_bundle: the bundle that stands in for the stages that were not run.
        generator: the imported generator that it was trained on.

    Raises:
        BundleError: if what reads a run is not installed.
        ValueError, FileNotFoundError: if the run or the photos will not do.
    """
    try:
        from training.folder import Run, load_run_directions, load_system
        from training.recipes import recipe as find_recipe
    except ModuleNotFoundError as error:
        raise BundleError(f"a training run needs {error.name}: pip install 'edgedit[export,train]'") from error
    made = Run(recipe=find_recipe(recipe), root=run, data=faces, from_bundle=from_bundle, generator=generator)
    licence = OWN_LICENCE if generator is None else imported.read(generator).licence
    network, directions = load_system(made), load_run_directions(made)
    model = Model(network=network, directions=directions, licence=licence, what="Unmeasured")
    # Enlarged by repeating pixels: the encoders' averages are then those of the photos that the run was trained with.
    height, width = made.recipe.family.image_shape
    photos = made.faces()[1].images[:max_faces]
    rows, columns = (np.arange(n) * m // n for n, m in ((height, photos.shape[1]), (width, photos.shape[2])))
    return model, photos[:, rows][:, :, columns]
