"""The graphs of a bundle: export-only modules around a method, and the table of their tensors.

Every method has the three pipelines that production runs (`export.pipelines`), and some are also exported as separate
graphs (`export.parts`). Example inputs, manifests and checks derive from what is here.
"""

from __future__ import annotations

from collections.abc import Sequence

from engines.bundle import Bundle
from engines.contracts import PARTS, PIPELINES, SELECTIONS
from export.bound import BoundGraph
from export.errors import ExportError
from export.parts import parts
from export.pipelines import pipelines
from training.methods import from_bundle
from training.methods.protocol import Method

GRAPHS = (*PARTS, *PIPELINES)
"""Names of all graphs, in the order they are exported."""


def method_graphs(method: Method) -> dict[str, BoundGraph]:
    """All graphs of a method by name, around its own tensors, none of which is copied.

    Args:
        method: in evaluation mode.

    Example:
        >>> graphs = method_graphs(create("e4e", FACES_1024))
        >>> tuple(graphs)
        ('invert', 'edit', 'reconstruct')
    """
    method = method.exportable()
    return parts(method) | pipelines(method)


def bundle_graphs(bundle: Bundle, device: str = "cpu") -> dict[str, BoundGraph]:
    """The graphs of a bundle by name, around its own networks (FP16 values in FP32), frozen.

    Raises:
        BundleError: if the bundle is damaged.
        ValueError: if its weights do not fit its family and method, or there is no such method.
    """
    graphs = method_graphs(from_bundle(bundle).to(device).requires_grad_(False))
    for graph in graphs.values():
        graph.module.to(device)
    return {name: graph for name, graph in graphs.items() if name in bundle.manifest.graphs}


def select(graphs: str | Sequence[str]) -> tuple[str, ...]:
    """The graphs that a name, or several, stand for (see `engines.contracts.SELECTIONS`), in the order of `GRAPHS`.

    Raises:
        ExportError: for an unknown name, or none at all.
    """
    if isinstance(graphs, str):
        graphs = [graphs]
    if unknown := [name for name in graphs if name not in GRAPHS and name not in SELECTIONS]:
        known = ", ".join((*SELECTIONS, *GRAPHS))
        raise ExportError(f"there is no graph {unknown[0]!r} to export; there are {known}")
    if not graphs:
        raise ExportError("no graphs were asked for; a bundle needs at least one")
    named = {graph for name in graphs for graph in SELECTIONS.get(name, (name,))}
    return tuple(name for name in GRAPHS if name in named)


def select_of(method: Method, graphs: str | Sequence[str]) -> tuple[str, ...]:
    """`select`, of the graphs that a method has.

    Raises:
        ExportError: for a graph that the method has not, or if the graph is left out whose tensors edits take.
    """
    selected, there = select(graphs), (*method.separate_graphs, *PIPELINES)
    if graphs == "all" or list(graphs) == ["all"]:
        return tuple(name for name in selected if name in there)
    if unknown := [name for name in selected if name not in there]:
        raise ExportError(f"method {method.info.key} has no graph {unknown[0]!r}; there are {', '.join(there)}")
    # Separate graphs compose an inversion of their own contract; any other is known from the graph that gives it.
    if "invert" not in selected and not method.separate_graphs:
        raise ExportError(
            f"a bundle of method {method.info.key} needs the graph 'invert': its tensors are what edits take"
        )
    return selected
