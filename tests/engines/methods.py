"""A bundle of hand-made graphs whose inversion is not that of the project's own method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from safetensors.numpy import save

from engines.bundle import WEIGHTS_FILE, BundleWriter, ProducedBy
from engines.contracts import BATCH, PIPELINES, TensorSpec, graph_contract
from engines.directions import Direction
from engines.family import ModelFamily
from tests.engines.conftest import TINY, Graph, tiny_directions, tiny_weights

METHOD = "hfgi"


def contract(family: ModelFamily, graph: str) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """A code and the photo at the encoder's size; `reconstruct` reads the code alone."""
    photo = graph_contract(family, "invert")[0][0]
    w, delta_w = (
        TensorSpec(name=name, dtype="float32", shape=[BATCH, family.w_rows, family.style_dim])
        for name in ("w", "delta_w")
    )
    residual = TensorSpec(name="residual", dtype="float32", shape=[BATCH, 3, *family.encoder_size])
    return {
        "invert": ([photo], [w, residual]),
        "edit": ([w, residual, delta_w], [photo]),
        "reconstruct": ([w], [photo]),
    }[graph]


def graph_of(family: ModelFamily, name: str, weights: bytes) -> bytes:
    """The serialized graph of that name."""
    g = Graph(family, weights)
    if name == "invert":
        image = g.image_in()
        g.code(image, "e4e.weight", "w")
        g.op("Identity", image, output="residual")
        return g.model(*contract(family, name))
    code = g.op("Add", "w", "delta_w") if name == "edit" else "w"
    rendered = g.generator(g.features(code, None, "own"), code, None, "rendered")
    g.image_out(g.op("Add", rendered, "residual") if name == "edit" else rendered)
    return g.model(*contract(family, name))


def write_method(
    path: Path,
    family: ModelFamily = TINY,
    graphs: tuple[str, ...] = PIPELINES,
    *,
    directions: list[Direction] | None = None,
    change: Callable[[str, list[TensorSpec]], list[TensorSpec]] = lambda graph, inputs: inputs,
) -> Path:
    """Writes the bundle, with the tiny directions that move codes; `change` may give a graph other inputs."""
    weights = save(tiny_weights(family))
    produced_by = ProducedBy(tools={"onnx": onnx.__version__}, command="pytest", date="2026-01-01T00:00:00Z")
    with BundleWriter(
        path,
        name="other",
        family=family,
        precision="fp16",
        licence="CC0-1.0",
        produced_by=produced_by,
        method=METHOD,
    ) as writer:
        writer.add_bytes(WEIGHTS_FILE, weights)
        for graph in graphs:
            inputs, outputs = contract(family, graph)
            writer.add_graph(graph, graph_of(family, graph, weights), change(graph, inputs), outputs)
        codes = [direction for direction in tiny_directions(family) if direction.space != "s"]
        for direction in codes if directions is None else directions:
            writer.add_direction(direction)
    return path
