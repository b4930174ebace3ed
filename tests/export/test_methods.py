"""The graphs of the methods of Table 5: in PyTorch they are the methods; exported, they are verified, built, served."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engines.building.build import build
from engines.building.certificate import Certifier
from engines.bundle import WEIGHTS_FILE, Bundle, BundleWriter, ProducedBy
from engines.contracts import PIPELINES
from engines.directions import Direction
from engines.errors import RuntimeUnavailableError
from engines.family import ModelFamily
from engines.runtimes.backend import load
from engines.session import EditSession
from export.bound import SYSTEM_PREFIX
from export.build import export_bundle, export_graphs
from export.errors import ExportError
from export.graphs import bundle_graphs, method_graphs
from export.onnx_graph import export_graph
from export.pipelines import ImageOut, layout
from export.verify import Verifier, graph_feeds
from export.weights import half_weights, rounded, write_weights
from tests.export.helpers import TINY, random_photos, smile
from tests.training.methods.conftest import liven
from training.methods import METHODS, create
from training.methods.hyperstyle import REFINEMENTS, HyperStyle
from training.methods.protocol import CARS, Method

# As at full size: photos larger than the encoders' input, whose quarter is the feature.
# Channels enough for convolutions, not the image's FP32 sum, to be nearly all of the work.
FAMILY = dataclasses.replace(
    TINY, name="tiny-256", size=256, channel_base=2048, encoder_size=(128, 128), feature_resolution=32
)
CARS_FAMILY = dataclasses.replace(FAMILY, name="tiny-cars", visible_rows=(32, 224), encoder_size=(96, 128))
KEYS = [key for key in METHODS if key != "ours"]
INVERSIONS = {
    "e4e": ["w"],
    "fs": ["w", "feature", "generator_feature"],
    "hfgi": ["w", "residual"],
    "clcae": ["w", "feature", "generator_feature", "base", "values", "fine"],
    "styleres": ["w", "residual"],
    "sdic": ["w", "feature", "generator_feature"],
    "sfe": ["w", "fused", "w_e", "generator_feature"],
    "hyperstyle": ["w", *(f"deltas_{i}" for i in range(13))],
}


@cache
def method_of(key: str, family: ModelFamily = FAMILY) -> Method:
    """A method none of whose parts is switched off, with images mostly inside [-1, 1]; not to be changed."""
    torch.manual_seed(1)
    method = create(key, family)
    if isinstance(method, HyperStyle):
        method.refinements = 2
    with torch.no_grad():
        for layer in method.decoder.to_rgbs:
            layer.conv.weight /= 8
    liven(method)
    return method.requires_grad_(False)


@pytest.mark.parametrize("key", KEYS)
def test_the_inversion_is_the_methods_own(key):
    made = layout(METHODS[key], FAMILY)
    assert [spec.name for spec in made.specs] == INVERSIONS[key]
    assert all(spec.dtype == "float32" and spec.shape[0] == "batch" for spec in made.specs)
    shapes = {spec.name: spec.shape[1:] for spec in made.specs}
    assert shapes["w"] == [FAMILY.w_rows, FAMILY.style_dim]
    if key in ("fs", "clcae"):
        assert shapes["feature"] == [FAMILY.channels(8), 8, 8]
    if key == "hyperstyle":
        assert shapes["deltas_0"] == [16, 16, 3, 3] and shapes["deltas_12"] == [8, 8, 1, 1]


@pytest.mark.parametrize(("key", "family"), [*((key, FAMILY) for key in KEYS), ("sdic", CARS_FAMILY)])
@torch.no_grad()
def test_graphs_are_the_method(key, family):
    method = method_of(key, family)
    graphs = method_graphs(method)
    photo = torch.from_numpy(random_photos(family, 2))
    feeds = graph_feeds(graphs, photo)
    own = method.invert(graphs["invert"].module.image_in(photo))
    _assert_pillows(graphs["invert"].module.image_in(photo), photo, method.input_size, key)
    out = ImageOut(family)
    # The first photo's edit is the same in every row, in W; the second's is not.
    wanted = {
        "edit": torch.cat(
            [
                out(method.edit(own, feeds["delta_w"][:, 0]))[:1],
                out(method.edit(own, feeds["delta_w"]))[1:],
            ]
        ),
        "reconstruct": out(method.reconstruct(own)),
    }
    for name, image in wanted.items():
        module = graphs[name].module
        assert all(parameter.startswith(SYSTEM_PREFIX) for parameter in module.state_dict())
        made = module(*(feeds[spec.name] for spec in graphs[name].inputs))
        assert made.dtype == torch.uint8 and list(made.shape[1:]) == graphs[name].outputs[0].shape[1:]
        assert (made.int() - image.int()).abs().max() <= 1, name
        assert made.float().std() > 2
    assert not torch.equal(wanted["edit"], wanted["reconstruct"])


def _assert_pillows(image, photo, size, key):
    """The encoder sees what the official code gives it, which rounds to whole levels twice."""
    filtered = Image.Resampling.BICUBIC if key == "styleres" else Image.Resampling.BILINEAR
    wanted = np.stack([np.asarray(Image.fromarray(one).resize(size[::-1], filtered)) for one in photo.numpy()])
    gap = ((image.permute(0, 2, 3, 1) + 1) * 127.5 - torch.from_numpy(wanted)).abs()
    assert gap.max() <= 1.15 and gap.mean() < 0.35


def test_an_edit_of_clcae_in_w_moves_the_base_code():
    method = method_of("clcae")
    graphs = method_graphs(method)
    feeds = graph_feeds(graphs, torch.from_numpy(random_photos(FAMILY, 2)))

    def edit(delta_w):
        given = feeds | {"delta_w": delta_w}
        with torch.no_grad():
            return graphs["edit"].module(*(given[spec.name] for spec in graphs["edit"].inputs)).int()

    in_w = feeds["delta_w"][:1, :1].expand(2, FAMILY.w_rows, -1)
    almost = in_w.clone()
    almost[:, -1, -1] += 1e-4
    assert (edit(in_w) - edit(almost)).abs().max() > 1
    # Rows alone are no edit in W, and a photo is edited as it would be by itself.
    mixed = edit(torch.cat([in_w[:1], almost[1:]]))
    assert torch.equal(mixed[0], edit(in_w)[0]) and torch.equal(mixed[1], edit(almost)[1])


def test_a_graph_is_exported_and_verified(tmp_path):
    reference = rounded(method_of("e4e", TINY))
    graphs = method_graphs(reference)
    table = write_weights(half_weights(reference).tensors, tmp_path / "weights.safetensors")
    exported = export_graph(graphs["edit"], table)
    (tmp_path / "edit.onnx").write_bytes(exported.data)
    assert [spec.name for spec in exported.inputs] == ["w", "delta_w"]
    assert all(name.startswith("decoder.") for name in exported.weights)
    verifier = Verifier(graphs, TINY, random_photos(TINY, 2), batches=(1, 3), threads=1)
    report = verifier.check("edit", tmp_path / "edit.onnx")
    assert set(report) == {"1", "3"} and all(gap["image"]["max_abs"] <= 1 for gap in report.values())


def test_what_a_bundle_of_a_method_cannot_hold(tmp_path):
    arguments = {
        "photos": random_photos(FAMILY, 1),
        "out": tmp_path / "bundle",
        "name": "e4e",
        "card": "",
        "licence": "CC0-1.0",
    }
    method = method_of("e4e")
    styles = Direction(
        **{**vars(smile(FAMILY)), "kind": "stylespace", "space": "s", "vector": _styles(), "name": "hair"}
    )
    for changes, message in (
        ({"graphs": "split"}, "method e4e has no graph 'encoder'; there are invert, edit, reconstruct"),
        ({"graphs": "edit"}, "a bundle of method e4e needs the graph 'invert'"),
        ({"directions": [styles]}, "method e4e edits codes alone; leave out the directions that move styles"),
    ):
        with pytest.raises(ExportError, match=message):
            export_bundle(method, **({"directions": []} | arguments | changes))
    assert not list(tmp_path.iterdir())


def test_a_bundle_says_how_often_its_method_refines(tmp_path):
    method = method_of("hyperstyle", TINY)
    weights = half_weights(method).tensors
    write_weights(weights, tmp_path / "weights.safetensors")
    photo = torch.from_numpy(random_photos(TINY, 1))
    inversions, invert = {}, method_graphs(method)["invert"]
    for refinements in (2, 3, None):
        about = {"family": TINY, "precision": "fp16-weights", "licence": "", "method": "hyperstyle"}
        made = ProducedBy(tools={}, command="", date="")
        out = tmp_path / str(refinements)
        with BundleWriter(out, name="h", produced_by=made, refinements=refinements, **about) as writer:
            writer.add_file(WEIGHTS_FILE, tmp_path / "weights.safetensors")
            writer.add_graph("invert", b"", invert.inputs, invert.outputs)
        # Without the field a manifest is what earlier versions wrote, and read.
        assert ("refinements" in (out / "manifest.json").read_text()) == (refinements is not None)
        bundle = Bundle.load(out)
        assert bundle.manifest.refinements == refinements
        graph = bundle_graphs(bundle)["invert"].module
        assert graph.system.refinements == (refinements or REFINEMENTS)
        with torch.no_grad():
            inversions[refinements] = graph(photo)[1]
    with torch.no_grad():
        own = rounded(method)
        assert own.refinements == 2
        wanted = own.exportable().invert(invert.module.image_in(photo)).deltas[0]
    assert torch.equal(inversions[2], wanted) and not torch.allclose(inversions[3], wanted, rtol=1e-2)
    with pytest.raises(ValueError, match="SDIC refines nothing"):
        create("sdic", TINY, refinements=2)


def _styles() -> np.ndarray:
    return np.ones(sum(FAMILY.style_channels), np.float32)


@cache
def _bundle(key: str, folder: Path) -> Bundle:
    method = method_of(key)
    out = folder / key
    photos = random_photos(FAMILY, 2)
    given = [] if key == "hyperstyle" else [smile(FAMILY)]
    export_bundle(method, given, photos, out, name=key, card="", licence="CC0-1.0", threads=1)
    return Bundle.load(out)


@pytest.fixture
def exported(key: str, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The method's bundle, made once."""
    return _bundle(key, tmp_path_factory.getbasetemp())


slow = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("key", [pytest.param(key, marks=slow) for key in KEYS])
def test_all_graphs_pass_and_a_session_edits(key, exported):
    report = exported.manifest.metrics["verification"]["graphs"]
    assert tuple(report) == PIPELINES and exported.method == key
    assert exported.manifest.refinements == (2 if key == "hyperstyle" else None)
    for graph, batches in report.items():
        assert set(batches) == {"1", "3"}
        for outputs in batches.values():
            for name, gap in outputs.items():
                assert gap["max_abs"] <= 1 if graph != "invert" else gap["relative"] < 1e-4, (graph, name, gap)
    assert sum(exported.manifest.files[e.file].bytes for e in exported.manifest.graphs.values()) < 4 * 2**20
    session = EditSession(exported, threads=1)
    photos = random_photos(FAMILY, 3, seed=5)
    inversion = session.invert(photos)
    delta = 0.2 * np.random.default_rng(0).normal(size=(FAMILY.w_rows, FAMILY.style_dim)).astype(np.float32)
    edited = session.edit(inversion, delta).astype(int)
    assert np.abs(edited - session.reconstruct(inversion)).mean() > 0.5
    # The networks that the bundle holds, in PyTorch.
    graphs = bundle_graphs(exported)
    with torch.no_grad():
        own = {name: torch.from_numpy(inversion.array(name)) for name in inversion.names}
        own["delta_w"] = torch.from_numpy(delta).expand(3, -1, -1)
        wanted = graphs["edit"].module(*(own[spec.name] for spec in graphs["edit"].inputs)).numpy()
        assert np.abs(edited - wanted).max() <= 1
        for name, value in zip(inversion.names, graphs["invert"].module(torch.from_numpy(photos)), strict=True):
            np.testing.assert_allclose(value, inversion.array(name), rtol=0, atol=1e-3 * value.abs().max().item())


@pytest.mark.parametrize("key", [pytest.param(key, marks=slow) for key in KEYS])
def test_emulated_fp16_keeps_the_images(key, exported):
    certifier = Certifier(exported, random_photos(FAMILY, 2), batch=2, threads=1)
    for graph in PIPELINES:
        certificate = certifier.certify(graph, "fp16")
        assert not certificate["nan"] and not certificate["activations"]["overflowed"], graph
        assert certificate["images"]["psnr"]["worst"] > 45, graph


@pytest.mark.parametrize("key", [pytest.param(key, marks=[*slow, pytest.mark.rtx]) for key in KEYS])
def test_fp16_engines_are_built(key, exported):
    try:
        load("tensorrt-rtx")
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
    manifest = build(exported.path, runtime="tensorrt-rtx", target="sm86", precision="fp16")
    assert tuple(manifest.graphs) == PIPELINES
    for graph in manifest.graphs.values():
        assert graph.proof.share >= 0.98


@pytest.mark.parametrize("key", [pytest.param(key, marks=slow) for key in KEYS if CARS in METHODS[key].info.families])
def test_cars_export(key, tmp_path):
    files = export_graphs(method_of(key, CARS_FAMILY), tmp_path)
    assert tuple(files) == PIPELINES and all(file.is_file() for file in files.values())
