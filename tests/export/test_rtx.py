"""TensorRT-RTX's ONNX parser reads every graph, its weights from the one safetensors file. Needs no GPU."""

from __future__ import annotations

import pytest

from engines.bundle import Bundle
from engines.contracts import graph_contract
from engines.errors import RuntimeUnavailableError
from engines.runtimes.backend import load
from export.graphs import GRAPHS
from tests.export.helpers import export_door
from tests.random_bundle import RANDOM_BUNDLE

pytestmark = pytest.mark.rtx

try:
    trt = load("tensorrt-rtx").api
except RuntimeUnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.load(RANDOM_BUNDLE)


@pytest.fixture(scope="module")
def logger():
    return trt.Logger(trt.Logger.ERROR)


@pytest.mark.parametrize(("source", "target"), [((64, 64), (16, 16)), ((64, 64), (48, 48))])
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_the_parser_reads_every_resize(logger, tmp_path, source, target, kind):
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(export_door(tmp_path / "door.onnx", source, target, kind)))
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    assert list(network.get_output(0).shape) == [-1, 3, *target]


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_parser_reads_the_shipped_graph(shipped: Bundle, logger, graph):
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(shipped.path / shipped.graph(graph).file))
    errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
    assert parsed and not errors, errors
    assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    dtypes = {trt.float32: "float32", trt.uint8: "uint8"}
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    for tensors, contract in zip((inputs, outputs), graph_contract(shipped.family, graph), strict=True):
        have = [(t.name, dtypes[t.dtype], list(t.shape)) for t in tensors]
        assert have == [(s.name, s.dtype, [-1, *s.shape[1:]]) for s in contract]
