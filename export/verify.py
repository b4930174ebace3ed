"""Does an exported graph compute what the network computes? ONNX Runtime against PyTorch, on given photos.

The reference is the network with FP16-rounded weights in FP32 arithmetic (`export.weights.rounded`), which is what a
graph is meant to compute; what the rounding itself does to images is a question for the metrics, not for this check.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.errors import first_line
from engines.family import ModelFamily
from engines.runtimes.ort import session
from export.bound import BoundGraph
from export.errors import ExportError
from export.parts import part_feeds

FLOAT_GATE = 1e-3
"""Largest allowed difference: absolute for images in [-1, 1], else as a share of the output's largest value."""

LEVEL_GATE = 1
"""Largest allowed difference of uint8 images, in grey levels: a value on the edge may round either way."""

EDIT_STRENGTH = 0.1
"""Random deltas that the edit graphs are checked with, as a share of the codes' standard deviation."""


def _gap(reference: np.ndarray, actual: np.ndarray) -> dict[str, float | None]:
    """max_abs: largest difference; scale: largest reference value; relative: their quotient; psnr in dB, against 255
    for uint8, 2 for images in [-1, 1] and smaller values, else the scale (None: no difference at all)."""
    a, b = reference.astype(np.float64), actual.astype(np.float64)
    difference = np.abs(a - b)
    scale = float(np.abs(a).max())
    max_abs = float(difference.max())
    error = float(np.square(difference).mean())
    peak = 255.0 if reference.dtype == np.uint8 else max(2.0, scale)
    gap: dict[str, float | None] = {
        "max_abs": max_abs,
        "scale": scale,
        "relative": max_abs / scale if scale > 0 else max_abs,
        "psnr": 10 * math.log10(peak * peak / error) if error > 0 else None,
    }
    if reference.dtype == np.uint8:
        gap["share"] = float((difference > 0).mean())
    return gap


def compare(graph: str, output: str, batch: int, reference: np.ndarray, actual: np.ndarray) -> dict[str, Any]:
    """Figures of one output (see the module's gates).

    Raises:
        ExportError: if shape or dtype differ, a value is not finite, or a gate is exceeded; one line that names graph,
            output, batch and figure.
    """
    where = f"graph {graph}, output {output}, batch {batch}"
    if reference.shape != actual.shape or reference.dtype != actual.dtype:
        raise ExportError(
            f"{where}: ONNX Runtime gives {actual.dtype} {actual.shape}, PyTorch {reference.dtype} {reference.shape}"
        )
    for who, values in (("PyTorch", reference), ("ONNX Runtime", actual)):
        if not np.isfinite(values).all():
            raise ExportError(f"{where}: {who} gives values that are not finite")
    gap = _gap(reference, actual)
    if reference.dtype == np.uint8:
        figure, gate, unit = gap["max_abs"], LEVEL_GATE, "grey levels"
    elif output == "image":
        figure, gate, unit = gap["max_abs"], FLOAT_GATE, "at most"
    else:
        figure, gate, unit = gap["relative"], FLOAT_GATE, "of its largest value"
    if figure > gate:
        unit = "" if unit == "at most" else f" {unit}"
        raise ExportError(f"{where}: ONNX Runtime and PyTorch differ by {figure:.3g}{unit}, more than {gate:g}")
    return gap


@torch.no_grad()
def graph_feeds(graphs: Mapping[str, BoundGraph], photo: Tensor) -> dict[str, Tensor]:
    """Every graph's inputs by name, from the networks themselves; "photo" is the uint8 image, and "image" that of the
    separate graphs, since both are "image" to a graph.

    Edits are random, of `EDIT_STRENGTH`: the first photo's the same in every row of the code, the others' not.

    Args:
        graphs: all those of one method, as `export.graphs.method_graphs` gives them.
        photo: uint8 B x h x w x 3.
    """
    invert = graphs["invert"]
    known = {"photo": photo} | dict(zip((spec.name for spec in invert.outputs), invert.module(photo), strict=True))
    strength = EDIT_STRENGTH * known[invert.outputs[0].name].std()
    source = torch.Generator().manual_seed(0)
    for spec in graphs["edit"].inputs:
        if spec.name not in known:
            shape = (len(photo), *map(int, spec.shape[1:]))
            known[spec.name] = strength * torch.randn(shape, generator=source)
    known["delta_w"][0] = known["delta_w"][0, :1]
    return known | (part_feeds(graphs, known) if "features" in graphs else {})


class Verifier:
    """Checks exported graphs of one network on photos.

    Args:
        graphs: all those of the method with FP16-rounded weights.
        family: the network's.
        photos: uint8 M x h x w x 3, h x w = `family.image_shape`, M at least 1; repeated where a batch needs more.
        batches: batch sizes to run.
        threads: of ONNX Runtime, see `engines.cpus.threads`.

    Raises:
        ExportError: if the photos do not fit the family or there is no batch to run.
    """

    def __init__(
        self,
        graphs: Mapping[str, BoundGraph],
        family: ModelFamily,
        photos: np.ndarray,
        *,
        batches: Sequence[int] = (1, 3),
        threads: int = 0,
    ) -> None:
        height, width = family.image_shape
        if photos.dtype != np.uint8 or photos.ndim != 4 or photos.shape[1:] != (height, width, 3) or not len(photos):
            raise ExportError(
                f"photos for verification must be uint8 of shape (any, {height}, {width}, 3), "
                f"got {photos.dtype} {photos.shape}"
            )
        if not batches or min(batches) < 1:
            raise ExportError(f"verification needs batch sizes of at least 1, got {list(batches)}")
        self.graphs = graphs
        self.batches = tuple(batches)
        self.threads = threads
        with torch.no_grad():
            self._feeds = {
                batch: graph_feeds(graphs, torch.from_numpy(photos[np.arange(batch) % len(photos)]))
                for batch in self.batches
            }

    def feeds(self, graph: str) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """(batch, inputs by name) of a graph, for each batch size."""
        for batch in self.batches:
            known = self._feeds[batch]
            specs = self.graphs[graph].inputs
            yield batch, {s.name: known["photo" if s.dtype == "uint8" else s.name] for s in specs}

    def check(self, graph: str, model: Path) -> dict[str, Any]:
        """Runs one graph from disk, its weights beside it, and compares every output.

        Returns:
            Batch size (as text) to output name to figures, JSON-able.

        Raises:
            ExportError: if ONNX Runtime cannot load the graph, or an output fails its gate.
        """
        try:
            loaded = session(model, threads=self.threads)
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise ExportError(f"graph {graph}: ONNX Runtime cannot load it: {first_line(error)}") from error
        module = self.graphs[graph].module
        names = [spec.name for spec in self.graphs[graph].outputs]
        report: dict[str, Any] = {}
        for batch, feeds in self.feeds(graph):
            actual = loaded.run(names, {name: value.numpy() for name, value in feeds.items()})
            with torch.no_grad():
                wanted = module(*feeds.values())
            wanted = [wanted] if isinstance(wanted, Tensor) else wanted
            report[str(batch)] = {
                name: compare(graph, name, batch, reference.numpy(), np.asarray(value))
                for name, reference, value in zip(names, wanted, actual, strict=True)
            }
        return report
