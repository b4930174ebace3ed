"""Small typed graphs, and a bundle that builds in seconds."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.bundle.layers import Layer, LayerReport
from engines.contracts import TensorSpec
from engines.precision import TypedGraph
from tests.engines.conftest import TINY, write_tiny

# Without the resize that the parser refuses: the photo has the encoder's size.
FAMILY = dataclasses.replace(TINY, name="small", visible_rows=None)

SHAPE = (4, 8, 8)


def write_small(
    path: Path, edit: Callable[[str, onnx.ModelProto], None] = lambda name, model: None, seed: int = 7
) -> Path:
    """The tiny bundle with named nodes; `edit` may change each graph before it is written."""

    def change(name: str, model: onnx.ModelProto) -> None:
        for index, node in enumerate(model.graph.node):
            node.name = f"node_{node.op_type}_{index}"
        edit(name, model)

    return write_tiny(path, FAMILY, name="small", edit=change, seed=seed)


@pytest.fixture(scope="session")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all tests: not to be changed."""
    return write_small(tmp_path_factory.mktemp("bundle") / "small")


@pytest.fixture
def own_bundle(small_path: Path, tmp_path: Path) -> Path:
    """A copy to build into."""
    return Path(shutil.copytree(small_path, tmp_path / "small"))


Typed = Callable[..., TypedGraph]


@pytest.fixture
def typed(tmp_path: Path) -> Typed:
    """Writes a graph x -> y of nodes with FP32 or FP16 weights, as `engines.precision.lower` would give it."""

    def make(
        nodes: Sequence[onnx.NodeProto],
        weights: dict[str, np.ndarray] | None = None,
        *,
        dtype: str = "float16",
        batch: int | str = "batch",
        out: Sequence[int] = SHAPE,
        opset: int = 20,
        reasons: dict[str, str] | None = None,
    ) -> TypedGraph:
        kind = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}[dtype]
        graph = helper.make_graph(
            list(nodes),
            "g",
            [helper.make_tensor_value_info("x", kind, [batch, *SHAPE])],
            [helper.make_tensor_value_info("y", kind, [batch, *out])],
            [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
        )
        domains = {node.domain for node in nodes if node.domain}
        imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
        file = tmp_path / "g.onnx"
        onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), file)
        layers = [
            Layer(
                name=name,
                operator="",
                precision="float32",
                inputs=[],
                outputs=[],
                macs=0,
                weight_bytes=0,
                activation_bytes=0,
                reason=reason,
            )
            for name, reason in (reasons or {}).items()
        ]
        report = LayerReport(graph="g", source="graph", precision="fp16", layers=layers)
        return TypedGraph(
            "g",
            file,
            report,
            [TensorSpec(name="x", dtype=dtype, shape=[batch, *SHAPE])],
            [TensorSpec(name="y", dtype=dtype, shape=[batch, *out])],
        )

    return make


def ones(*shape: int, dtype: type = np.float16) -> np.ndarray:
    return np.ones(shape, dtype)
