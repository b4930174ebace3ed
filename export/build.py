"""A trained editing system, or another method of Table 5 -> a verified bundle.

The bundle appears only once every graph in it has been compared with the network; after an error nothing is left.
Graphs are exported one after the other and none is ever joined with its weights in memory, so that peak memory is a
few times the size of the weights.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue
from torch import Tensor

from engines.bundle import CARD_FILE, EXTERNAL_LOCATION, WEIGHTS_FILE, BundleWriter, ProducedBy
from engines.bundle.provenance import now, tool_versions
from engines.contracts import OURS, PARTS, PIPELINES
from engines.directions import Direction, resolve
from engines.family import ModelFamily
from export.errors import ExportError
from export.graphs import BoundGraph, own_graphs, select
from export.onnx_graph import OPSET, export_graph
from export.peers import peer_feeds, peer_graphs
from export.verify import FLOAT_GATE, LEVEL_GATE, Verifier, own_feeds
from export.weights import half_weights, rounded, write_weights
from training.networks.system import EditingSystem
from training.peers.protocol import Peer

Feeds = Callable[[Tensor], dict[str, Tensor]]
"""uint8 photos to every graph's inputs by name, see `Verifier`."""

PRECISION = "fp16-weights"
"""Weights are stored in FP16; activations and arithmetic are FP32 unless a builder lowers them."""


def _check_directions(directions: Sequence[Direction], family: ModelFamily, method: str) -> None:
    by_name = {direction.name: direction for direction in directions}
    if len(by_name) < len(directions):
        raise ExportError("two directions have the same name; give each its own")
    edit = resolve(by_name, {name: direction.max_strength for name, direction in by_name.items()}, family)
    if method != OURS and edit.style_delta.any():
        raise ExportError(f"method {method} edits codes alone; leave out the directions that move styles")


def _graphs(network: EditingSystem | Peer, family: ModelFamily) -> tuple[dict[str, BoundGraph], Feeds]:
    """A network's graphs, and what gives their inputs for photos."""
    if isinstance(network, EditingSystem):
        return own_graphs(network, family), partial(own_feeds, network, family)
    graphs = peer_graphs(network)
    return graphs, partial(peer_feeds, graphs)


def _selected(graphs: str | Sequence[str], method: str) -> tuple[str, ...]:
    selected = select(graphs)
    if method == OURS:
        return selected
    if graphs == "all" or list(graphs) == ["all"]:
        return PIPELINES
    # An edit starts from what `invert` gives: its tensors are the bundle's contract.
    if parts := [name for name in selected if name in PARTS]:
        raise ExportError(f"method {method} has no graph {parts[0]!r}; there are {', '.join(PIPELINES)}")
    if "invert" not in selected:
        raise ExportError(f"a bundle of method {method} needs the graph 'invert': its tensors are what edits take")
    return selected


def export_bundle(
    system: EditingSystem | Peer,
    family: ModelFamily,
    directions: Sequence[Direction],
    photos: np.ndarray,
    out: str | Path,
    *,
    name: str,
    card: str,
    licence: str,
    metrics: Mapping[str, JsonValue] | None = None,
    graphs: str | Sequence[str] = "all",
    batches: Sequence[int] = (1, 3),
    command: str = "export_bundle",
    threads: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Writes and verifies a bundle.

    Args:
        system: ours, or any of `training.peers`; any device and dtype; it is not changed.
        family: the system's family.
        directions: edit directions to ship.
        photos: uint8 M x h x w x 3 to verify with, h x w = `family.image_shape`. They do not enter the bundle.
        out: the bundle's directory; a bundle that is there is replaced.
        name: of the bundle.
        card: the model card, Markdown.
        licence: SPDX expression or name of the weights' licence.
        metrics: further measured figures for the manifest.
        graphs: "all", "pipelines" or "split", or names of single graphs; the separate graphs are of our method alone.
        batches: batch sizes to verify.
        command: for the manifest; must hold no path of this machine.
        threads: of ONNX Runtime during verification, see `engines.cpus.threads`.
        progress: called with one line before each step.

    Returns:
        The verification report, as in `metrics["verification"]` of the manifest.

    Raises:
        ExportError: if a weight does not fit FP16, a graph fails its contract or its verification, or the photos do
            not fit.
        DirectionError: if a direction was made for another family.
        OutputError: if `out` cannot be written.
    """
    method = OURS if isinstance(system, EditingSystem) else system.info.key
    selected = _selected(graphs, method)
    progress = progress or (lambda message: None)
    _check_directions(directions, family, method)
    produced_by = ProducedBy(
        tools=tool_versions(),
        command=command,
        date=now(),
    )
    writer = BundleWriter(
        out,
        name=name,
        family=family,
        precision=PRECISION,
        licence=licence,
        produced_by=produced_by,
        metrics=dict(metrics or {}),
        method=method,
    )
    with writer, tempfile.TemporaryDirectory(prefix="edgedit-export-") as folder:
        scratch = Path(folder)
        progress("rounding weights to FP16")
        half = half_weights(system)
        table = write_weights(half.tensors, scratch / EXTERNAL_LOCATION)
        weights = {
            "tensors": len(table),
            "parameters": half.parameters,
            "bytes": sum(entry.length for entry in table.values()),
            "worst_relative_rounding": half.worst,
            "coarse": dict(half.coarse),
        }
        del half
        bound, feeds = _graphs(rounded(system), family)
        progress("running the network on the photos")
        verifier = Verifier(bound, feeds, family, photos, batches=batches, threads=threads)
        report: dict[str, Any] = {"gates": {"float": FLOAT_GATE, "levels": LEVEL_GATE}, "graphs": {}}
        sizes: dict[str, Any] = {}
        for graph in selected:
            progress(f"exporting {graph}")
            exported = export_graph(bound[graph], table)
            file = scratch / f"{graph}.onnx"
            file.write_bytes(exported.data)
            progress(f"verifying {graph}")
            report["graphs"][graph] = verifier.check(graph, file)
            sizes[graph] = {"bytes": len(exported.data), "nodes": exported.nodes, "weights": len(exported.weights)}
            writer.add_graph(graph, exported.data, exported.inputs, exported.outputs)
            del exported
            gc.collect()
        progress("writing the bundle")
        writer.add_file(WEIGHTS_FILE, scratch / EXTERNAL_LOCATION)
        writer.add_bytes(CARD_FILE, card.encode())
        for direction in directions:
            writer.add_direction(direction)
        writer.metrics["verification"] = report
        writer.metrics["export"] = {"opset": OPSET, "weights": weights, "graphs": sizes}
    return report
