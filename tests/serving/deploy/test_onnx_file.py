"""The reader of ONNX files must see what the onnx package sees, and refuse what it cannot see."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from serving.deploy.errors import StartError
from serving.deploy.onnx_file import read
from tests.random_bundle import RANDOM_BUNDLE

GRAPHS = sorted(RANDOM_BUNDLE.glob("graphs/*.onnx"))


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_agrees_with_onnx(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    inputs = {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
        )
        for value in model.graph.input
    }
    places = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    found = read(path)
    assert found.inputs == inputs
    assert None in next(iter(found.inputs.values()))  # the batch is dynamic
    assert set(found.external) == places == {"weights.safetensors"}
    assert [file.name for file in found.files] == [path.name, "weights.safetensors"]


def graph(tmp_path: Path, location: str) -> Path:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    path = tmp_path / "model.plan.onnx"
    path.write_bytes(helper.make_model(helper.make_graph([node], "g", [value], [out], [weight])).SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../w", "/etc/passwd", "a/w", "..", "gone"])
def test_weights_must_lie_beside(tmp_path: Path, location: str) -> None:
    with pytest.raises(StartError, match="no file beside it; copy both together"):
        read(graph(tmp_path, location))


def test_weights_beside_are_found(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"\0" * 8)
    assert read(graph(tmp_path, "w")).inputs == {"x": (None, 2)}


@given(data=st.data())
def test_damage_is_one_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut short or with a byte changed: a StartError, or a graph, and nothing else."""
    folder = tmp_path_factory.mktemp("damaged")
    path = graph(folder, "w")
    (folder / "w").write_bytes(b"\0" * 8)
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        assert read(path).inputs
    except StartError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x3a\x00"])
def test_what_is_no_graph(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.plan.onnx"
    path.write_bytes(content)
    with pytest.raises(StartError, match="is not an ONNX graph with inputs"):
        read(path)
    with pytest.raises(StartError, match="cannot be read"):
        read(tmp_path / "gone.onnx")
