"""The methods of the paper's Table 5 (and HyperStyle of its Table 2), composed from the parts of `training.networks`.

Written from the published papers and from descriptions of the layers, not from the methods' code. No weights of theirs
are part of this project; what the licence of the official ones allows is said in each method's `info`.
"""

from __future__ import annotations

from pathlib import Path

from engines.errors import suggestion
from engines.family import ModelFamily
from training.imported import fill, read
from training.peers.clcae import CLCAE
from training.peers.e4e import E4E
from training.peers.fs import FS
from training.peers.hfgi import HFGI
from training.peers.hyperstyle import HyperStyle
from training.peers.ours import Ours, OursLight
from training.peers.protocol import CARS, Peer
from training.peers.sdic import SDIC
from training.peers.sfe import SFE
from training.peers.styleres import StyleRes

METHODS: dict[str, type[Peer]] = {
    method.info.key: method for method in (E4E, FS, HFGI, CLCAE, StyleRes, SDIC, SFE, HyperStyle, Ours)
}
"""By key, in the order of Table 5; HyperStyle stands before the paper's own."""

COMPARED: dict[str, type[Peer]] = METHODS | {OursLight.info.key: OursLight}
"""What is counted and timed: the methods, and the system with light networks."""


def method(key: str) -> type[Peer]:
    """The method of that key.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    try:
        return METHODS[key]
    except KeyError:
        raise ValueError(f"unknown method {key!r}; {suggestion(key, METHODS)}there are {', '.join(METHODS)}") from None


def create(key: str, family: ModelFamily) -> Peer:
    """A method with random weights, in evaluation mode.

    Raises:
        ValueError: if the method is unknown, or does not do cars and the family is one of cars.
    """
    kind = COMPARED.get(key) or method(key)
    if family.visible_rows is not None and CARS not in kind.info.families:
        there = ", ".join(kind.info.families)
        raise ValueError(f"{kind.info.title} exists for {there}, not for {family.name}; choose another family")
    return kind(family).eval()


def load(path: str | Path) -> Peer:
    """A method with the weights of a file that `edgedit import weights` wrote, in evaluation mode.

    Raises:
        ValueError: if the file is damaged, holds no method, or its tensors are not exactly the method's.
    """
    imported = read(path)
    if imported.kind not in METHODS or imported.family is None:
        raise ValueError(f"{path} holds {imported.kind}, which is no method of Table 5")
    peer = create(imported.kind, imported.family)
    fill(peer, imported.tensors, path)
    return peer
