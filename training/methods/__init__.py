"""All methods: the paper's own, those of its Table 5 and HyperStyle of its Table 2, made of `training.networks`.

Each is a `Method`, and is exported, run, counted and timed as such. The others' are written from the published papers
and from descriptions of the layers, not from the methods' code. No weights of theirs
are part of this project; what the licence of the official ones allows is said in each method's `info`.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load as parse_tensors

from engines.bundle import WEIGHTS_FILE, Bundle
from engines.errors import suggestion
from engines.family import ModelFamily
from training.imported import fill, read
from training.methods.clcae import CLCAE
from training.methods.e4e import E4E
from training.methods.fs import FS
from training.methods.hfgi import HFGI
from training.methods.hyperstyle import HyperStyle
from training.methods.paper import EditingSystem, LightEditingSystem
from training.methods.protocol import CARS, Method
from training.methods.sdic import SDIC
from training.methods.sfe import SFE
from training.methods.styleres import StyleRes

METHODS: dict[str, type[Method]] = {
    method.info.key: method for method in (E4E, FS, HFGI, CLCAE, StyleRes, SDIC, SFE, HyperStyle, EditingSystem)
}
"""All methods by key, in the order of Table 5; HyperStyle stands before the paper's own."""

COMPARED: dict[str, type[Method]] = METHODS | {LightEditingSystem.info.key: LightEditingSystem}
"""All that is counted and timed: the methods, and the system with light networks."""


def find_method(key: str) -> type[Method]:
    """The method of that key.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    try:
        return METHODS[key]
    except KeyError:
        raise ValueError(f"unknown method {key!r}; {suggestion(key, METHODS)}there are {', '.join(METHODS)}") from None


def create(key: str, family: ModelFamily, refinements: int | None = None) -> Method:
    """A method with random weights, in evaluation mode.

    Args:
        key: of `METHODS` or `COMPARED`.
        family: whose sizes its networks have.
        refinements: how often a method that refines does so; None: as often as it does by default.

    Raises:
        ValueError: if the method is unknown, does not do cars and the family is one of cars, or refines nothing.
    """
    kind = COMPARED.get(key) or find_method(key)
    if family.visible_rows is not None and CARS not in kind.info.families:
        there = ", ".join(kind.info.families)
        raise ValueError(f"{kind.info.title} exists for {there}, not for {family.name}; choose another family")
    made = kind(family).eval()
    if refinements is not None:
        if made.refinements is None:
            raise ValueError(f"{kind.info.title} refines nothing; leave its number of refinements out")
        made.refinements = refinements
    return made


def load(path: str | Path) -> Method:
    """A method with the weights of a file that `edgedit import weights` wrote, in evaluation mode.

    Raises:
        ValueError: if the file is damaged, holds no method, or its tensors are not exactly the method's.
    """
    imported = read(path)
    if imported.kind not in METHODS or imported.family is None:
        raise ValueError(f"{path} holds {imported.kind}, which is no method of Table 5")
    method = create(imported.kind, imported.family)
    fill(method, imported.tensors, path)
    return method


def from_bundle(bundle: Bundle) -> Method:
    """The method of a bundle with its weights, FP16 values as FP32, in evaluation mode.

    Raises:
        BundleError: if the weights file is damaged.
        ValueError: if there is no such method, or the weights are not those of its networks.
    """
    method = create(bundle.method, bundle.family, bundle.manifest.refinements)
    tensors = {name: tensor.float() for name, tensor in parse_tensors(bundle.read(WEIGHTS_FILE)).items()}
    try:
        missing, unexpected = method.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # a tensor of another shape
        raise ValueError(f"the weights of {bundle.path} do not fit: {str(error).splitlines()[-1].strip()}") from error
    if lost := [name for name in missing if not name.endswith("num_batches_tracked")] + unexpected:
        raise ValueError(f"the weights of {bundle.path} do not fit family {bundle.family.name}: {lost[0]}")
    return method
