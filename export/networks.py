"""The networks of a bundle in PyTorch: its weights, FP16 values in FP32, in the method that it is of."""

from __future__ import annotations

from engines.bundle import Bundle
from engines.contracts import OURS
from export.graphs import GRAPHS, BoundGraph
from export.peers import peer_graphs
from training.peers import create
from training.weights import fill_from_bundle, load_bundle


def bundle_graphs(bundle: Bundle, device: str = "cpu") -> dict[str, BoundGraph]:
    """The graphs of a bundle by name, around its own networks, frozen. HyperStyle's refine as often as by default.

    Raises:
        BundleError: if the bundle is damaged.
        ValueError: if its weights do not fit its family and method, or there is no such method.
    """
    if bundle.method == OURS:
        system = load_bundle(bundle.path, bundle.family).to(device).eval().requires_grad_(False)
        graphs = {name: GRAPHS[name].bind(system, bundle.family) for name in bundle.manifest.graphs if name in GRAPHS}
    else:
        peer = create(bundle.method, bundle.family)
        fill_from_bundle(peer, bundle)
        graphs = peer_graphs(peer.to(device).requires_grad_(False))
    for graph in graphs.values():
        graph.module.to(device)
    return graphs
