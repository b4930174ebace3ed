"""MobileStyleGAN and the light networks as graphs: exported, lowered to FP16 and INT8, and built."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from engines.building import proof
from engines.building.build import build
from engines.building.certificate import Calibration, Certifier
from engines.bundle import Bundle
from engines.bundle.layers import LayerReport
from engines.contracts import PIPELINES
from engines.errors import RuntimeUnavailableError
from engines.precision import lower, quantise
from engines.precision.calibrate import calibrate
from engines.precision.fp32_rules import MOVES, RGB, STYLE
from engines.precision.source import load_source
from engines.runtimes.backend import load
from engines.session import EditSession
from export.build import export_bundle
from tests.export.helpers import MOBILE, random_photos, smile
from training.methods.paper import EditingSystem

GRAPHS = (*PIPELINES, "features", "generator")
"""The other parts are in `invert` and `edit` as they are."""


def random_mobile(seed: int = 0) -> EditingSystem:
    """None of whose branches is switched off, with noise, and an image that is mostly inside [-1, 1]."""
    torch.manual_seed(seed)
    system = EditingSystem(MOBILE).eval().requires_grad_(False)
    for name, parameter in system.named_parameters():
        spread = 0.05 if parameter.ndim < 2 else 0.5 / math.sqrt(parameter[0].numel())
        if not name.startswith("generator."):
            parameter += spread * torch.randn_like(parameter)
    for name, buffer in system.named_buffers():
        if name.endswith("noise"):
            buffer.normal_(0.0, 0.1)
        elif name.endswith("running_mean"):
            buffer.normal_(0.0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    w = system.generator.mapping(torch.randn(64, MOBILE.style_dim))
    image = system.generator(system.generator.broadcast(w))
    system.generator.to_image.weight /= 2.5 * image.std()
    system.latent_avg.copy_(w.mean(dim=0))
    return system


@cache
def _bundle(folder: Path) -> Bundle:
    out = folder / "mobile"
    system, photos = random_mobile(), random_photos(MOBILE, 3)
    about = {"name": "m", "card": "", "licence": "CC0-1.0"}
    export_bundle(system, [smile(MOBILE)], photos, out, graphs=GRAPHS, threads=1, **about)
    return Bundle.load(out)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return _bundle(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def typed(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, LayerReport]:
    folder = tmp_path_factory.mktemp("typed")
    return {graph: lower(bundle, graph, "fp16", folder).report for graph in GRAPHS}


def test_all_graphs_compute_what_the_networks_do(bundle: Bundle) -> None:
    report = bundle.manifest.metrics["verification"]["graphs"]
    assert sorted(report) == sorted(GRAPHS)
    for graph, batches in report.items():
        assert set(batches) == {"1", "3"}
        for outputs in batches.values():
            for name, gap in outputs.items():
                uint8 = name == "image" and graph in PIPELINES
                assert gap["max_abs"] <= 1 if uint8 else gap["relative"] < 1e-4, (graph, name, gap)
    session = EditSession(bundle, threads=1)
    inversion = session.invert(random_photos(MOBILE, 2, seed=5))
    delta = np.zeros((MOBILE.w_rows, MOBILE.style_dim), np.float32)
    delta[:4] = 0.5
    assert np.abs(session.edit(inversion, delta).astype(int) - session.reconstruct(inversion)).mean() > 0.5


def test_a_doubling_is_one_operator(bundle: Bundle) -> None:
    """The upper half: nothing between a depthwise convolution and its 1x1, no multiplication of a map but by its style,
    none between the inverse Haar transform and what follows; noise and other constants stand as they are read."""
    graph = load_source(bundle, "generator").graph
    blocks = len(MOBILE.synthesis_resolutions) - 1 - (MOBILE.feature_conv - 1) // 2
    operators = Counter(node.op_type for node in graph)
    assert operators["ConvTranspose"] == blocks + 1 and not operators["DepthToSpace"]
    assert operators["Conv"] == 2 * 2 * blocks + 1 and operators["LeakyRelu"] == 2 * blocks
    assert not operators["Sub"] and not operators["Cast"]
    depthwise = [n for n in graph if n.op_type == "Conv" and n.attributes.get_int("group", 1) > 1]
    assert len(depthwise) == 2 * blocks
    for node in depthwise:
        (use,) = node.outputs[0].uses()
        assert use.node.op_type == "Conv" and use.node.attributes.get_int("group", 1) == 1
        source = node.inputs[0].producer()
        scaled = source.op_type == "Mul" and any(_rank_two(v) for v in source.inputs)
        assert scaled or source.op_type == "ConvTranspose"
    # Multiplications of maps by their styles, and by block one of a style by what follows it.
    maps = [n for n in graph if n.op_type == "Mul" and not _from_vectors(n)]
    assert len(maps) == 3 * blocks + 1


@pytest.mark.parametrize("graph", GRAPHS)
def test_orders_and_windows_are_one_gather_each(bundle: Bundle, graph) -> None:
    """No chain of nodes makes an index or a batch, and the map of the feature is put in order in one pass."""
    operators = Counter(node.op_type for node in load_source(bundle, graph).graph)
    assert not {"GatherND", "Shape", "Range", "Where"} & set(operators)
    # A light e4e gives every row the same code.
    assert operators["Expand"] == (graph == "invert")
    # Attention and pictures alone are transposed or reshaped.
    if graph in ("features", "generator"):
        assert not {"Transpose", "Reshape"} & set(operators)
    assert operators["Slice"] == (graph == "invert")


def _rank_two(value: ir.Value) -> bool:
    return value.producer() is not None and value.producer().op_type == "Unsqueeze"


def _from_vectors(node: ir.Node) -> bool:
    """Styles: what comes of a Gemm and sums alone."""
    kinds = {v.producer().op_type for v in node.inputs if v.producer() is not None}
    return bool(kinds) and kinds <= {"Gemm", "Add", "Mul"}


@pytest.mark.parametrize("graph", GRAPHS)
def test_fp16_is_nearly_all_and_the_rest_has_reasons(typed, graph) -> None:
    report = typed[graph]
    assert report.share("float16") >= 0.97
    for layer in report.layers:
        kinds = {t.dtype for t in layer.inputs if t.dtype.startswith("float")}
        assert len(kinds) <= 1 or layer.operator in ("Cast", "Resize"), (layer.name, kinds)
        if layer.precision == "float32" and layer.operator not in MOVES:
            assert layer.reason, layer.name


def test_styles_and_the_picture_stay_in_fp32_and_no_map_does(typed) -> None:
    for graph in ("features", "generator"):
        for layer in typed[graph].layers:
            if layer.operator == "Gemm":
                assert (layer.precision, layer.reason) == ("float32", STYLE)
            if layer.operator in ("Conv", "LeakyRelu"):
                assert layer.precision == "float16", layer.name
            # Whatever is as large as a map and in FP32 is the picture.
            if layer.precision == "float32" and layer.outputs and len(layer.outputs[0].shape) == 4:
                assert math.prod(layer.outputs[0].shape[2:]) == 1 or layer.reason in (RGB, None), layer.name
    picture = [layer for layer in typed["generator"].layers if layer.reason == RGB]
    assert {"ConvTranspose", "Add"} <= {layer.operator for layer in picture}
    assert not [layer for layer in typed["features"].layers if layer.reason == RGB]


def test_fp16_keeps_the_photos(bundle: Bundle) -> None:
    certifier = Certifier(bundle, random_photos(MOBILE, 3), batch=3, threads=1)
    for graph in PIPELINES:
        certificate = certifier.certify(graph, "fp16")
        assert certificate["passed"] and not certificate["activations"]["overflowed"], (graph, certificate)
        assert certificate["activations"]["headroom"] > 100


def test_int8_keeps_the_photos_and_leaves_depthwise_convolutions_alone(bundle: Bundle, tmp_path: Path) -> None:
    photos = random_photos(MOBILE, 6)
    certifier = Certifier(bundle, photos, batch=3, threads=1)
    peaks = cache(lambda graph: calibrate(bundle, graph, certifier.feeds(graph), "int8", threads=1))
    judge = Certifier(bundle, photos, batch=3, threads=1, calibration=Calibration(peaks=peaks, photos=6, apart=False))
    for graph in PIPELINES:
        certificate = judge.certify(graph, "int8")
        assert certificate["images"]["psnr"]["worst"] >= 30, (graph, certificate["images"])
        layers = lower(bundle, graph, "int8", tmp_path, peaks=peaks(graph)).report.layers
        convolutions = [layer for layer in layers if layer.operator == "Conv"]
        depthwise = [one for one in convolutions if one.inputs[1].shape[1] == 1 and one.inputs[1].shape[2] == 3]
        assert {layer.reason for layer in depthwise} <= {quantise.GROUPED}
        assert any(layer.precision == "int8" for layer in convolutions)


@pytest.mark.rtx
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_engines_are_built(bundle: Bundle, precision, monkeypatch: pytest.MonkeyPatch) -> None:
    # At 64 pixels the picture's own transform, which stays in FP32, is more than a fiftieth of the upper half.
    monkeypatch.setitem(proof.LEAST_SHARE, "fp16", 0.97)  # type: ignore[arg-type]
    try:
        load("tensorrt-rtx")
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
    certifier = Certifier(bundle, random_photos(MOBILE, 3), batch=3, threads=1)
    peaks = cache(lambda graph: calibrate(bundle, graph, certifier.feeds(graph), "int8", threads=1))
    # At 64 pixels the picture's own convolution, which stays in FP16, is more than a tenth of the upper half.
    pipelines = PIPELINES if precision == "fp16" else ("invert",)
    manifest = build(
        bundle.path, runtime="tensorrt-rtx", target="sm86,sm120", precision=precision, graphs=pipelines, peaks=peaks
    )
    assert tuple(manifest.graphs) == pipelines
    for graph in manifest.graphs.values():
        assert graph.proof.share >= (0.97 if precision == "fp16" else 0.7)
