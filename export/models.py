"""The models that are exported: a training run, imported weights of a method of Table 5, or random ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from engines.contracts import DEFAULT_METHOD
from engines.directions import Direction
from engines.errors import BundleError
from engines.family import ModelFamily
from engines.family import family as find_family
from export.random_weights import random_weights
from training import imported
from training.methods import create, find_method, load
from training.methods.paper import EditingSystem
from training.methods.protocol import Method
from training.networks.light import LightE4EEncoder, LightFeatureStyleEncoder

OWN_LICENCE = "Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network and what goes into its bundle beside it."""

    network: Method
    licence: str
    what: str
    """The description of the weights, for the card."""
    name: str = "demo"
    """The bundle's name, unless another is given."""
    directions: list[Direction] = field(default_factory=list)

    @property
    def method(self) -> str:
        """The method's name in the bundle."""
        return self.network.info.key

    @property
    def family(self) -> ModelFamily:
        return self.network.family


def random_method(key: str, family: ModelFamily, seed: int = 0) -> Method:
    """A method with random weights, none of whose modules is the identity that it starts training as.

    Raises:
        ValueError: if there is no such method, or it does not exist for the family.
    """
    return random_weights(lambda: create(key, family), seed, find_method(key).identity_modules)


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
        method: key of one of `training.methods`; None: the paper's own.
        generator: an imported one to use, in the paper's own.

    Raises:
        ValueError: if there is no such family or method, or the generator is not of the family.
        BundleError: if a generator is given to another method.
    """
    chosen, kind = find_family(family), find_method(method or DEFAULT_METHOD)
    network = random_method(kind.info.key, chosen)
    name = method or "demo"
    if generator is None:
        what = "Random" if method is None else f"Random {kind.info.title}"
        return Model(network=network, licence=OWN_LICENCE, what=what, name=name)
    if not isinstance(network, EditingSystem):
        raise BundleError(f"{kind.info.title} brings its own generator; leave --generator out")
    from training.running.folder import require_generator

    own, mean = imported.load_generator(generator)
    require_generator(own.family, chosen, generator)
    network.generator = own
    network.latent_avg.copy_(mean)
    if chosen.encoder == "light":
        spread(network)
    what = "An imported generator's and otherwise random"
    return Model(network=network, licence=imported.read(generator).licence, what=what, name=name)


def imported_model(weights: Path, method: str | None = None) -> Model:
    """The weights of a method, from a file that `edgedit import weights` wrote.

    Raises:
        BundleError: if they are of another method than is named.
        ValueError: if the file does not hold a method's weights.
    """
    network = load(weights)
    info = network.info
    if method not in (None, info.key):
        raise BundleError(f"{weights} holds method {info.key}, not {method}; leave --method out")
    return Model(network=network, licence=info.licence, what=f"Imported {info.title}", name=info.key)


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
        from training.recipes import recipe as find_recipe
        from training.running.folder import Run, load_run_directions, load_system
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
