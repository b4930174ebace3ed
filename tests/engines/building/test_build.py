from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from engines.building.build import build, graph_names, parse_profile
from engines.building.builder import BuildOptions
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.engine_manifest import (
    ENGINE_DIGEST_FILE,
    ENGINE_FILE,
    EngineManifest,
    OptimizationProfile,
    parse_engine_manifest,
)
from engines.bundle.layers import LayerReport
from engines.contracts import PARTS, PIPELINES
from engines.errors import BundleError, EngineError
from tests.engines.building.conftest import write_small
from tests.random_bundle import RANDOM_BUNDLE

_ROOT = Path(__file__).resolve().parents[3]

_SLOW_BUILD = """
import sys, time
from engines.building.build import build
def fit(graph):
    print(graph, flush=True)
    time.sleep(600)
build(sys.argv[1], runtime="onnxruntime", precision="fp32", fit=fit)
"""


def ort(path: Path, *graphs: str, **options: Any) -> EngineManifest:
    """A build that is over in a moment; the tiny graphs are too small for a share of FP16."""
    return build(path, runtime="onnxruntime", precision="fp32", graphs=graphs or ("reconstruct",), **options)


def engines(path: Path) -> list[str]:
    return sorted(p.name for p in (path / "engines").iterdir()) if (path / "engines").exists() else []


def test_the_folder_is_what_its_manifest_says(own_bundle: Path) -> None:
    lines: list[str] = []
    manifest = ort(own_bundle, "pipelines", progress=lines.append, command="edgedit build small")
    folder = own_bundle / "engines" / "onnxruntime-cpu-fp32"
    assert engines(own_bundle) == [folder.name] == [manifest.folder]
    assert parse_engine_manifest((folder / ENGINE_FILE).read_bytes(), folder.name) == manifest
    assert {p.name for p in folder.iterdir()} == {*manifest.files, ENGINE_FILE, ENGINE_DIGEST_FILE}
    for name, entry in manifest.files.items():
        data = (folder / name).read_bytes()
        assert (entry.bytes, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    bundle = Bundle.load(own_bundle)
    assert manifest.weights_sha256 == bundle.manifest.files[WEIGHTS_FILE].sha256
    assert list(manifest.graphs) == list(PIPELINES)
    for name, graph in manifest.graphs.items():
        entry = bundle.graph(name)
        assert graph.source_sha256 == bundle.manifest.files[entry.file].sha256
        assert (graph.inputs, graph.outputs) == (entry.inputs, entry.outputs)
        assert graph.profile == OptimizationProfile(min=1, opt=1, max=8) and graph.proof.share == 1.0
        assert graph.layers is not None
        layers = LayerReport.parse((folder / graph.layers).read_bytes(), graph.layers)
        assert layers.macs == graph.proof.macs > 0 and layers.source == "graph"
    built = manifest.built
    assert (built.library, built.version) == ("ONNX Runtime", onnxruntime.__version__)
    assert str(own_bundle.parent) not in (folder / ENGINE_FILE).read_text()
    assert len(lines) == 6 and "edit (2 of 3)" in lines[2]


def test_the_typed_graph_runs_from_its_folder(own_bundle: Path) -> None:
    ort(own_bundle)
    source = own_bundle / "graphs" / "reconstruct.onnx"
    made = own_bundle / "engines" / "onnxruntime-cpu-fp32" / "reconstruct.onnx"
    images = []
    for file in (source, made):
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(5)
        feeds = {i.name: rng.normal(0, 1, [2, *i.shape[1:]]).astype(np.float32) for i in session.get_inputs()}
        images.append(np.asarray(session.run(None, feeds)[0]).astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1 and images[0].std() > 1


def test_folders_stand_side_by_side(own_bundle: Path) -> None:
    ort(own_bundle)
    ort(own_bundle, "split", target="cuda")
    ort(own_bundle, "edit")
    assert engines(own_bundle) == ["onnxruntime-cpu-fp32", "onnxruntime-cuda-fp32"]


def test_a_certificate_goes_into_the_manifest(own_bundle: Path) -> None:
    def fit(graph: str) -> tuple[frozenset[str], dict | None]:
        return frozenset(), {"psnr": 51.5} if graph == "edit" else None

    manifest = ort(own_bundle, "pipelines", fit=fit)
    assert {name: graph.certificate for name, graph in manifest.graphs.items()} == {
        "invert": None,
        "edit": {"psnr": 51.5},
        "reconstruct": None,
    }


def test_a_certificate_that_fails_leaves_the_old_engine(own_bundle: Path) -> None:
    before = ort(own_bundle)

    def fit(graph: str) -> tuple[frozenset[str], dict | None]:
        raise EngineError("PSNR 20 dB")

    with pytest.raises(EngineError, match="PSNR 20 dB"):
        ort(own_bundle, "pipelines", fit=fit)
    folder = own_bundle / "engines" / before.folder
    assert engines(own_bundle) == [before.folder]
    assert parse_engine_manifest((folder / ENGINE_FILE).read_bytes(), folder.name) == before


def test_names_of_graphs(small_path: Path) -> None:
    bundle = Bundle.load(small_path)
    assert graph_names(bundle, ["pipelines"]) == list(PIPELINES)
    assert graph_names(bundle, ["all"]) == [*PARTS, *PIPELINES]
    assert graph_names(bundle, ["split"]) == list(PARTS)
    assert graph_names(bundle, ["edit", "pipelines", "edit", "editor"]) == ["edit", "invert", "reconstruct", "editor"]
    with pytest.raises(
        EngineError, match="unknown graph 'invertt'; there are all, pipelines, split, invert, edit, reconstruct"
    ):
        graph_names(bundle, ["edit", "invertt"])


def test_a_graph_that_the_bundle_lacks(make_tiny_bundle) -> None:
    path = make_tiny_bundle(graphs=("edit",))
    with pytest.raises(BundleError, match="there is no graph 'invert' in this bundle; it has edit"):
        ort(path, "pipelines")
    assert engines(path) == []


@pytest.mark.parametrize(("text", "sizes"), [("1:2:8", (1, 2, 8)), ("4", (4, 4, 4)), (" 1:1:1 ", (1, 1, 1))])
def test_a_profile(text: str, sizes: tuple[int, int, int]) -> None:
    profile = parse_profile(text)
    assert (profile.min, profile.opt, profile.max) == sizes


@pytest.mark.parametrize("text", ["", "1:2", "0:1:8", "8:2:1", "1:2:3:4", "a:b:c", "1:2.5:8", "-1:1:1"])
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(EngineError, match="must be MIN:OPT:MAX, whole numbers from 1 on in rising order"):
        parse_profile(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "tpu"}, "unknown target 'tpu'; ONNX Runtime runs on cpu, cuda"),
        ({"precision": "int8"}, "precision int8 needs the ranges of activations"),
        ({"precision": "fp8"}, "precision fp8 needs the ranges of activations"),
        (
            {"precision": "fp16", "graphs": ["invert"]},
            r"graph invert was asked for in fp16, and 8\d.\d% of its MACs",
        ),
        (
            {"precision": "fp16", "fit": lambda graph: (frozenset({"none"}), None), "graphs": ["edit"]},
            "no node none to widen",
        ),
    ],
)
def test_what_is_refused_leaves_nothing(own_bundle: Path, options: dict, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        build(own_bundle, **{"runtime": "onnxruntime", **options})
    assert not (own_bundle / "engines").exists()


def test_damage_is_found_before_anything_is_built(own_bundle: Path) -> None:
    for file in ("graphs/edit.onnx", WEIGHTS_FILE):
        whole = (own_bundle / file).read_bytes()
        (own_bundle / file).write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        with pytest.raises(BundleError, match=f"{file} is damaged"):
            ort(own_bundle, "edit")
        (own_bundle / file).write_bytes(whole)
    assert not (own_bundle / "engines").exists()


def test_graphs_that_cannot_be_built(tmp_path: Path) -> None:
    def edit(name: str, model: onnx.ModelProto) -> None:
        if name == "invert":
            model.opset_import[0].version = 99
        elif name == "edit":
            source = model.graph.node[0].output[0]
            model.graph.node[0].output[0] = "before"
            odd = helper.make_node("Frobnicate", ["before"], [source], name="odd", domain="acme")
            model.graph.node.insert(1, odd)
            model.opset_import.append(helper.make_opsetid("acme", 1))

    path = write_small(tmp_path / "small", edit)
    with pytest.raises(EngineError, match="graph invert uses ONNX opset 99, and engines are built from at most 20"):
        ort(path, "invert")
    with pytest.raises(EngineError, match="Frobnicate odd"):
        ort(path, "edit")
    assert engines(path) == []


def test_a_place_that_cannot_be_written(own_bundle: Path) -> None:
    (own_bundle / "engines").write_text("in the way")
    with pytest.raises(EngineError, match="engines is not a directory of the bundle"):
        ort(own_bundle)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_and_concurrent_builds(own_bundle: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", _SLOW_BUILD, str(own_bundle)],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None and other.stdout.readline() == "invert\n"
    with pytest.raises(EngineError, match=rf"another build \(process {other.pid}\)"):
        ort(own_bundle)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert engines(own_bundle) and all(name.startswith(".") for name in engines(own_bundle))
    ort(own_bundle)
    assert engines(own_bundle) == ["onnxruntime-cpu-fp32"]


def test_no_space_for_the_typed_graph(own_bundle: Path) -> None:
    """The write that fails is that of the weights, inside `lower`."""
    script = (
        "import resource, signal, sys\nfrom engines.building.build import build\n"
        "from engines.errors import OutputError\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try:\n    build(sys.argv[1], runtime='onnxruntime', precision='fp32')\n"
        "except OutputError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(own_bundle)],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
    )
    assert "cannot write" in done.stdout and "File too large" in done.stdout, done.stdout + done.stderr
    assert not (own_bundle / "engines").exists()


@pytest.mark.rtx
def test_engines_for_two_architectures(own_bundle: Path) -> None:
    manifest = build(
        own_bundle,
        runtime="tensorrt-rtx",
        target="sm89,sm86",
        precision="fp32",
        graphs=["reconstruct", "generator"],
        options=BuildOptions(profile=OptimizationProfile(min=1, opt=2, max=4), weight_streaming=True),
    )
    assert manifest.folder == "tensorrt-rtx-sm86+sm89-fp32"
    built = manifest.built
    assert built.library == "TensorRT-RTX" and built.compute_capabilities == ["8.6", "8.9"]
    assert built.driver_floor is not None and built.flags["weight_streaming"] is True and built.flags["tf32"] is False
    assert any("rtx" in tool for tool in built.tools)
    folder = own_bundle / "engines" / manifest.folder
    assert {p.name for p in folder.iterdir()} == {*manifest.files, ENGINE_FILE, ENGINE_DIGEST_FILE}
    graph = manifest.graphs["reconstruct"]
    assert graph.file == "reconstruct.engine" and graph.proof.source == "network" and graph.seconds > 0
    assert graph.device_memory is not None and graph.profile.max == 4
    assert Bundle.load(own_bundle).verify() == []


@pytest.mark.rtx
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("sm90", "TensorRT-RTX does not build for sm90"),
        ("sm87", "TensorRT-RTX does not build for sm87"),
        ("sm33", "unknown target 'sm33'; TensorRT-RTX builds for sm75, sm80, sm86"),
    ],
)
def test_targets_that_rtx_refuses(own_bundle: Path, target: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        build(own_bundle, runtime="tensorrt-rtx", target=target)
    assert not (own_bundle / "engines").exists()


@pytest.mark.rtx
def test_a_shipped_pipeline_is_fp16_inside(tmp_path: Path) -> None:
    path = Path(shutil.copytree(RANDOM_BUNDLE, tmp_path / "demo", ignore=shutil.ignore_patterns("engines")))
    manifest = build(path, runtime="tensorrt-rtx", target="sm86", precision="fp16", graphs=["reconstruct"])
    graph = manifest.graphs["reconstruct"]
    assert graph.proof.share > 0.99 and graph.proof.macs > 10**8
    assert graph.proof.wide and all(wide.reason != "unexplained" for wide in graph.proof.wide)
    assert graph.layers is not None
    report = LayerReport.parse((path / "engines" / manifest.folder / graph.layers).read_bytes(), graph.layers)
    assert report.source == "network" and report.share("float16") == graph.proof.share
    # FP16 weights, with the FP32 of the styles.
    assert graph.weight_bytes < Bundle.load(path, verify=False).manifest.files[WEIGHTS_FILE].bytes
