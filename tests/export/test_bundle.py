"""The export end to end, on graphs small enough for every run; all eight graphs in `test_full.py`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto

from engines.bundle import CARD_FILE, EXTERNAL_LOCATION, WEIGHTS_FILE, Bundle
from engines.contracts import graph_contract
from engines.directions import load_directions
from engines.errors import DirectionError
from export import build, onnx_graph, verify
from export.bound import example_inputs
from export.build import export_bundle
from export.errors import ExportError
from export.graphs import method_graphs
from export.onnx_graph import INLINE_LIMIT, export_graph
from export.parts import MODULES
from export.verify import Verifier
from export.weights import half_weights, rounded, weight_table, write_weights
from tests.export.helpers import TINY, random_photos, smile

SMALL = ("features", "generator", "reconstruct")


def _export(system, out, **changes):
    arguments = {
        "method": system,
        "directions": [smile(TINY)],
        "photos": random_photos(TINY, 2),
        "out": out,
        "name": "tiny",
        "card": "# Tiny\n",
        "licence": "CC0-1.0",
        "metrics": {"identity": 0.5},
        "graphs": SMALL,
        "threads": 1,
    }
    return export_bundle(**(arguments | changes))


@pytest.fixture(scope="module")
def small(system, tmp_path_factory) -> Bundle:
    out = tmp_path_factory.mktemp("small") / "tiny"
    _export(system, out)
    return Bundle.load(out)


def _models(bundle: Bundle) -> dict[str, onnx.ModelProto]:
    return {name: onnx.ModelProto.FromString(bundle.read(entry.file)) for name, entry in bundle.manifest.graphs.items()}


def test_the_bundle_holds_what_it_says(small):
    manifest = small.manifest
    assert set(manifest.graphs) == set(SMALL)
    for name, entry in manifest.graphs.items():
        assert (entry.inputs, entry.outputs) == graph_contract(TINY, name)
    assert set(manifest.files) == {
        WEIGHTS_FILE,
        CARD_FILE,
        "directions/smile.safetensors",
        *(f"graphs/{name}.onnx" for name in SMALL),
    }
    assert manifest.metrics["identity"] == 0.5
    assert manifest.produced_by.tools["torch"] == torch.__version__
    assert small.read(CARD_FILE) == b"# Tiny\n"
    np.testing.assert_array_equal(load_directions(small)["smile"].vector, smile(TINY).vector)


def test_the_manifest_reports_the_verification(small):
    report = small.manifest.metrics["verification"]
    assert set(report["graphs"]) == set(SMALL)
    for batches in report["graphs"].values():
        assert set(batches) == {"1", "3"}
    image = report["graphs"]["generator"]["3"]["image"]
    assert 0 <= image["max_abs"] < 1e-4 and image["psnr"] > 90 and 0.5 < image["scale"] < 10
    levels = report["graphs"]["reconstruct"]["3"]["image"]
    assert levels["max_abs"] <= 1 and levels["share"] < 0.01
    assert small.manifest.metrics["export"]["weights"]["coarse"] == {}


def test_weights_stand_once_and_every_graph_points_at_them(small, system):
    path = small.path / WEIGHTS_FILE
    table, raw = weight_table(path), path.read_bytes()
    state = system.state_dict()
    used = set()
    for name, model in _models(small).items():
        for tensor in model.graph.initializer:
            if tensor.data_location != TensorProto.EXTERNAL:
                floating = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
                assert not floating or len(tensor.raw_data) <= INLINE_LIMIT, (name, tensor.name)
                continue
            place = {entry.key: entry.value for entry in tensor.external_data}
            entry = table[tensor.name]
            assert place == {
                "location": EXTERNAL_LOCATION,
                "offset": str(entry.offset),
                "length": str(entry.length),
            }
            assert tensor.data_type == TensorProto.FLOAT16 and tuple(tensor.dims) == entry.shape
            values = np.frombuffer(raw[entry.offset : entry.offset + entry.length], "<f2").reshape(entry.shape)
            np.testing.assert_array_equal(values, state[tensor.name].half().numpy())
            used.add(tensor.name)
        readers = {i for node in model.graph.node if node.op_type != "Cast" for i in node.input}
        assert not readers & set(table), "weights reach the arithmetic through casts to FP32 only"
    drawn = {name for name in state if name.startswith("generator.") and not name.startswith("generator.style.")}
    assert used == {name for name in drawn if "to_rgb1" not in name and "to_rgbs.0.upsample" not in name}


def test_graphs_are_small_and_valid(small):
    for name, entry in small.manifest.graphs.items():
        assert small.manifest.files[entry.file].bytes < 64 * 1024
        onnx.checker.check_model(str(small.path / entry.file), full_check=True)
        assert small.manifest.metrics["export"]["graphs"][name]["bytes"] == small.manifest.files[entry.file].bytes


def test_modulated_convolutions_share_one_weight_between_samples(small):
    channels = {TINY.channels(r) for r in TINY.resolutions}
    for model in _models(small).values():
        groups = [
            attribute.i
            for node in model.graph.node
            if node.op_type in ("Conv", "ConvTranspose")
            for attribute in node.attribute
            if attribute.name == "group"
        ]
        # The only grouped convolutions are the depthwise FIR filters; none has as many groups as the traced batch.
        assert groups and set(groups) <= {1, 3, *channels}


def test_no_trace_of_the_machine_that_exported(small):
    words = [
        str(Path.cwd()),
        str(Path.home()),
        os.path.dirname(sys.executable),
        "site-packages",
        ".py",
        'File "',
        "tests/",
    ]
    for file in (*(e.file for e in small.manifest.graphs.values()), "graphs/weights.safetensors"):
        data = small.read(file)
        header = data[8 : 8 + int.from_bytes(data[:8], "little")] if file.endswith(".safetensors") else data
        for word in words:
            assert word.encode() not in header, (file, word)
    manifest = (small.path / "manifest.json").read_text()
    assert str(Path.cwd()) not in manifest and str(Path.home()) not in manifest
    for model in _models(small).values():
        assert not model.doc_string and not model.metadata_props and not model.graph.metadata_props
        assert not model.functions and not model.graph.value_info
        assert all(not node.doc_string and not node.metadata_props for node in model.graph.node)


def test_exporting_twice_gives_the_same_bytes(small, features):
    assert features.data == small.read("graphs/features.onnx")


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_runs_and_photos_do_not_mix(small, system, batch):
    session = ort.InferenceSession(str(small.path / "graphs/generator.onnx"), providers=["CPUExecutionProvider"])
    inputs = example_inputs(graph_contract(TINY, "generator")[0], batch=batch, seed=4)
    names = [spec.name for spec in graph_contract(TINY, "generator")[0]]
    feeds = {name: (0.3 * tensor).numpy() for name, tensor in zip(names, inputs, strict=True)}
    (together,) = session.run(None, feeds)
    assert together.shape == (batch, 3, TINY.size, TINY.size)
    (last,) = session.run(None, {name: array[-1:] for name, array in feeds.items()})
    np.testing.assert_allclose(together[-1:], last, rtol=0, atol=1e-4)


def test_a_zero_style_delta_changes_nothing_in_the_graph(small):
    session = ort.InferenceSession(str(small.path / "graphs/features.onnx"), providers=["CPUExecutionProvider"])
    reference = rounded_reference(small)
    w_plus, delta = example_inputs(graph_contract(TINY, "features")[0], batch=2)
    (feature,) = session.run(None, {"w_plus": w_plus.numpy(), "style_delta": np.zeros_like(delta.numpy())})
    with torch.no_grad():
        without = reference.features(w_plus).numpy()
    np.testing.assert_allclose(feature, without, rtol=0, atol=1e-5 * np.abs(without).max())


def rounded_reference(bundle: Bundle):
    """The system as a user would rebuild it: from the bundle's family and weights alone."""
    from safetensors.torch import load_file

    from training.methods.paper import EditingSystem

    system = EditingSystem(bundle.family).eval()
    stored = {name: tensor.float() for name, tensor in load_file(bundle.path / WEIGHTS_FILE).items()}
    missing, unexpected = system.load_state_dict(stored, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    return system


@pytest.fixture(scope="module")
def features(small, system) -> onnx_graph.ExportedGraph:
    """The graph `features` as every export of this system makes it, for tests of what comes after."""
    return export_graph(method_graphs(rounded(system))["features"], weight_table(small.path / WEIGHTS_FILE))


def _nothing_left(folder: Path) -> bool:
    return list(folder.iterdir()) == []


def test_an_overflowing_weight_stops_the_export(system, tmp_path):
    weight = system.generator.to_rgbs[1].conv.weight
    kept = weight[0, 1, 0].clone()
    try:
        weight[0, 1, 0] = 1e5
        with pytest.raises(ExportError, match=r"weight generator\.to_rgbs\.1\.conv\.weight reaches 100000, beyond"):
            _export(system, tmp_path / "b")
    finally:
        weight[0, 1, 0] = kept
    assert _nothing_left(tmp_path)


def test_a_failing_gate_stops_the_export(system, features, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "export_graph", lambda graph, table: features)
    monkeypatch.setattr(verify, "FLOAT_GATE", 1e-12)
    with pytest.raises(
        ExportError, match=r"^graph features, output generator_feature, batch 1: .* differ by \S+ of"
    ) as e:
        _export(system, tmp_path / "b", graphs="features")
    assert "\n" not in str(e.value)
    assert _nothing_left(tmp_path)


def test_a_graph_that_computes_something_else_stops_the_export(system, features, tmp_path, monkeypatch):
    model = onnx.ModelProto.FromString(features.data)
    slope = next(a for n in model.graph.node if n.op_type == "LeakyRelu" for a in n.attribute)
    slope.f = 0.21
    wrong = onnx_graph.ExportedGraph(**(vars(features) | {"data": model.SerializeToString()}))
    monkeypatch.setattr(build, "export_graph", lambda graph, table: wrong)
    out = tmp_path / "b"
    with pytest.raises(ExportError, match=r"graph features, output generator_feature, batch 1"):
        _export(system, out, graphs="features")
    assert _nothing_left(tmp_path)


def test_a_bundle_that_is_there_outlives_a_failed_export(small, system, features, monkeypatch):
    before = (small.path / "manifest.json").read_bytes()
    monkeypatch.setattr(build, "export_graph", lambda graph, table: features)
    monkeypatch.setattr(verify, "FLOAT_GATE", 1e-12)
    with pytest.raises(ExportError):
        _export(system, small.path, graphs="features")
    assert (small.path / "manifest.json").read_bytes() == before
    assert Bundle.load(small.path).verify() == []
    assert [p.name for p in small.path.parent.iterdir()] == [small.path.name]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"graphs": "fast"}, ExportError, "no graph 'fast'"),
        ({"photos": random_photos(TINY, 1)[:, :32]}, ExportError, r"must be uint8 of shape \(any, 64, 64, 3\)"),
        ({"photos": random_photos(TINY, 1).astype(np.float32)}, ExportError, "got float32"),
        ({"photos": random_photos(TINY, 1)[:0]}, ExportError, "photos for verification"),
        ({"batches": ()}, ExportError, "batch sizes of at least 1"),
        ({"batches": (0,)}, ExportError, "batch sizes of at least 1"),
        ({"directions": [smile(TINY), smile(TINY)]}, ExportError, "two directions have the same name"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(system, tmp_path, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        _export(system, tmp_path / "b", **changes)
    assert "\n" not in str(caught.value)
    assert _nothing_left(tmp_path)


def test_a_direction_of_another_family_is_refused(system, tmp_path):
    import dataclasses

    other = smile(dataclasses.replace(TINY, style_dim=24))
    with pytest.raises(DirectionError, match="does not fit family tiny-64"):
        _export(system, tmp_path / "b", directions=[other])
    assert _nothing_left(tmp_path)


class Stand(torch.nn.Module):
    """In the place of `features`: its inputs, one of the system's weights, and an output as large as its own."""

    def __init__(self, system):
        super().__init__()
        self.system = system
        self.table = torch.eye(sum(system.family.style_channels)) / 2

    def forward(self, w_plus, style_delta):
        side = TINY.feature_resolution
        channels = self.system.generator.convs[0].activate.bias + w_plus.mean((1, 2))[:, None] + style_delta[:, :1]
        return channels[:, :, None, None].expand(-1, TINY.feature_channels, side, side)


class Folded(Stand):
    """A graph that multiplies by a table that is no weight of the system."""

    def forward(self, w_plus, style_delta):
        return super().forward(w_plus, style_delta @ self.table)


def test_a_large_nameless_constant_is_an_error(system, tmp_path, monkeypatch):
    table = write_weights(half_weights(system).tensors, tmp_path / "w")
    monkeypatch.setitem(MODULES, "features", Folded)
    with pytest.raises(ExportError, match=r"graph features holds the constant \S+ of \d+ bytes that is no weight"):
        export_graph(method_graphs(system)["features"], table)


class Misshapen(Stand):
    def forward(self, w_plus, style_delta):
        return super().forward(w_plus, style_delta)[:, 1:]


def test_a_graph_that_breaks_its_contract_is_an_error(system, tmp_path, monkeypatch):
    table = write_weights(half_weights(system).tensors, tmp_path / "w")
    monkeypatch.setitem(MODULES, "features", Misshapen)
    with pytest.raises(ExportError, match="graph features: output generator_feature came out as"):
        export_graph(method_graphs(system)["features"], table)


def test_weights_of_another_system_are_an_error(system, tmp_path, monkeypatch):
    monkeypatch.setitem(MODULES, "features", Stand)
    tensors = half_weights(system).tensors
    name = "generator.convs.0.activate.bias"
    table = write_weights(tensors | {name: torch.zeros(3, dtype=torch.float16)}, tmp_path / "w")
    with pytest.raises(ExportError, match=f"weight {name} is .* in the network but F16"):
        export_graph(method_graphs(system)["features"], table)


def test_figures_are_json_and_mean_what_they_say():
    a = np.zeros((1, 3, 2, 2), np.float32)
    b = a + np.float32(5e-4)
    gap = verify.compare("generator", "image", 1, a, b)
    assert gap["max_abs"] == pytest.approx(5e-4) and gap["psnr"] == pytest.approx(20 * np.log10(2 / 5e-4), abs=1e-3)
    assert json.loads(json.dumps(gap, allow_nan=False)) == gap
    same = verify.compare("edit", "image", 1, np.full((1, 2, 2, 3), 9, np.uint8), np.full((1, 2, 2, 3), 9, np.uint8))
    assert same["psnr"] is None and same["max_abs"] == same["share"] == 0


@pytest.mark.parametrize(
    ("output", "reference", "actual", "passes"),
    [
        ("image", np.float32([100.0]), np.float32([100.002]), False),
        ("feature", np.float32([100.0]), np.float32([100.002]), True),
        ("feature", np.float32([100.0]), np.float32([100.2]), False),
        ("image", np.uint8([0, 7]), np.uint8([0, 8]), True),
        ("image", np.uint8([0, 7]), np.uint8([0, 9]), False),
        ("image", np.uint8([255]), np.uint8([0]), False),
        ("image", np.float32([np.nan]), np.float32([np.nan]), False),
        ("image", np.float32([0]), np.float32([np.inf]), False),
        ("image", np.float32([0]), np.float32([0, 0]), False),
        ("image", np.float32([0]), np.uint8([0]), False),
    ],
)
def test_gates(output, reference, actual, passes):
    if passes:
        verify.compare("edit", output, 1, reference, actual)
    else:
        with pytest.raises(ExportError, match=f"^graph edit, output {output}, batch 1: "):
            verify.compare("edit", output, 1, reference, actual)


def test_a_file_that_is_no_graph_is_one_clear_line(system, tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    verifier = Verifier(method_graphs(system), TINY, random_photos(TINY, 1), batches=(1,), threads=1)
    with pytest.raises(ExportError, match="graph features: ONNX Runtime cannot load it") as caught:
        verifier.check("features", tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)
