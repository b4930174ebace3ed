"""A method with its weights -> a verified bundle.

The bundle appears only once every graph in it has been compared with the network; after an error nothing is left.
Graphs are exported one after the other and none is ever joined with its weights in memory, so that peak memory is a
few times the size of the weights.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from engines.bundle import CARD_FILE, EXTERNAL_LOCATION, WEIGHTS_FILE, BundleWriter, ProducedBy
from engines.bundle.provenance import now, tool_versions
from engines.directions import Direction, resolve
from export.errors import ExportError
from export.graphs import method_graphs, select_of
from export.onnx_graph import OPSET, export_graph
from export.pipelines import pipelines
from export.verify import FLOAT_GATE, LEVEL_GATE, Verifier
from export.weights import half_weights, rounded, write_weights
from training.methods.protocol import Method

PRECISION = "fp16-weights"
"""Weights are stored in FP16; activations and arithmetic are FP32 unless a builder lowers them."""


def _check_directions(directions: Sequence[Direction], method: Method) -> None:
    by_name = {direction.name: direction for direction in directions}
    if len(by_name) < len(directions):
        raise ExportError("two directions have the same name; give each its own")
    edit = resolve(by_name, {name: direction.max_strength for name, direction in by_name.items()}, method.family)
    if edit.style_delta.any() and not method.edits_styles:
        raise ExportError(f"method {method.info.key} edits codes alone; leave out the directions that move styles")


def export_graphs(method: Method, folder: Path) -> dict[str, Path]:
    """Writes a method's pipelines, `<graph>.onnx`, and the weights file that they share beside them.

    Images are uint8 NHWC on both sides; weights are stored in FP16, activations and arithmetic are FP32, the batch is
    dynamic (see `export.pipelines` for every tensor). Nothing is verified here: see `export_bundle`.

    Args:
        method: any; it is not changed.
        folder: made if it is not there.

    Returns:
        Graph name (`invert`, `edit`, `reconstruct`) to file, which `onnxruntime.InferenceSession` opens as it is.

    Raises:
        ExportError: if a weight does not fit FP16, or a graph does not meet its contract.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = write_weights(half_weights(method).tensors, folder / EXTERNAL_LOCATION)
    files: dict[str, Path] = {}
    for name, graph in pipelines(rounded(method).exportable()).items():
        files[name] = folder / f"{name}.onnx"
        files[name].write_bytes(export_graph(graph, table).data)
    return files


def export_bundle(
    method: Method,
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
        method: any, on any device and of any dtype; it is not changed.
        directions: edit directions to ship.
        photos: uint8 M x h x w x 3 to verify with, h x w = `method.family.image_shape`. They do not enter the bundle.
        out: the bundle's directory; a bundle that is there is replaced.
        name: of the bundle.
        card: the model card, Markdown.
        licence: SPDX expression or name of the weights' licence.
        metrics: further measured figures for the manifest.
        graphs: "all", "pipelines" or "split", or names of single graphs; most methods have no separate ones.
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
    family = method.family
    selected = select_of(method, graphs)
    progress = progress or (lambda message: None)
    _check_directions(directions, method)
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
        method=method.info.key,
        refinements=method.refinements,
    )
    with writer, tempfile.TemporaryDirectory(prefix="edgedit-export-") as folder:
        scratch = Path(folder)
        progress("rounding weights to FP16")
        half = half_weights(method)
        table = write_weights(half.tensors, scratch / EXTERNAL_LOCATION)
        weights = {
            "tensors": len(table),
            "parameters": half.parameters,
            "bytes": sum(entry.length for entry in table.values()),
            "worst_relative_rounding": half.worst,
            "coarse": dict(half.coarse),
        }
        del half
        bound = method_graphs(rounded(method))
        progress("running the network on the photos")
        verifier = Verifier(bound, family, photos, batches=batches, threads=threads)
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
