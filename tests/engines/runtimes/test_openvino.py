"""OpenVINO: the same results as ONNX Runtime, from bytes that were hashed, without a word to anybody."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="openvino is not installed")

from engines.building.build import build
from engines.building.certified import Faces, certification_inputs
from engines.bundle import Bundle
from engines.cpus import usable
from engines.errors import BundleError, EdgeditError, EngineError
from engines.runtimes import create
from engines.runtimes.openvino import HostTensor, OpenVINO
from engines.session import EditSession
from tests.engines.engine_folders import flip
from tests.random_bundle import RANDOM_BUNDLE


@pytest.fixture(scope="module")
def random_bundle() -> Bundle:
    return Bundle.load(RANDOM_BUNDLE)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def test_inversions_and_edits_are_those_of_onnx_runtime(random_bundle: Bundle, photos: np.ndarray) -> None:
    sessions = [EditSession(random_bundle, runtime, threads=1) for runtime in ("onnxruntime", "openvino")]
    family = random_bundle.family
    delta = np.random.default_rng(1).normal(scale=0.2, size=(family.w_rows, family.style_dim)).astype(np.float32)
    for count in (1, 3):
        ours, theirs = (session.invert(photos[:count]) for session in sessions)
        for name in ours.names:
            scale = np.abs(ours.array(name)).max()
            assert np.abs(ours.array(name) - theirs.array(name)).max() < 1e-4 * scale, name
        for one, other in (
            [session.edit(inversion, delta) for session, inversion in zip(sessions, (ours, theirs), strict=True)],
            [session.reconstruct(inversion) for session, inversion in zip(sessions, (ours, theirs), strict=True)],
        ):
            off = np.abs(one.astype(int) - other)
            assert off.max() <= 1 and (off > 0).mean() < 0.01


def test_an_inversion_stays_with_the_runtime_and_may_come_from_another(
    random_bundle: Bundle, photos: np.ndarray
) -> None:
    session, other = (EditSession(random_bundle, runtime, threads=1) for runtime in ("openvino", "onnxruntime"))
    inversion = session.invert(photos[:1])
    assert all(isinstance(tensor, HostTensor) for tensor in (inversion.held_by(session) or {}).values())  # type: ignore[attr-defined]
    picture = session.reconstruct(inversion)
    assert np.array_equal(session.reconstruct(inversion.host()), picture)
    assert np.abs(other.reconstruct(inversion).astype(int) - picture).max() <= 1


def test_runs_at_the_same_time_do_not_write_over_each_other(random_bundle: Bundle, photos: np.ndarray) -> None:
    runtime = create("openvino", random_bundle, "invert", threads=1)
    expected = [runtime.run({"image": photos[i : i + 1]})["w"] for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(lambda i: runtime.run({"image": photos[i : i + 1]})["w"], range(8)))
    assert all(np.array_equal(a, b) for a, b in zip(given, expected, strict=True))
    assert not np.array_equal(expected[0], expected[1])


def test_threads_are_never_more_than_this_process_may_use(random_bundle: Bundle) -> None:
    runtime = create("openvino", random_bundle, "reconstruct", threads=64)
    assert isinstance(runtime, OpenVINO)
    [(compiled, _)] = runtime._compiled.values()
    assert compiled.get_property("INFERENCE_NUM_THREADS") <= usable()
    assert str(compiled.get_property("INFERENCE_PRECISION_HINT")) == "<Type: 'float32'>"
    assert not compiled.get_property("LOADED_FROM_CACHE")
    for batch in (2, 3, 4):
        runtime.warm_up(batch)
    assert len(runtime._compiled) == 2


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    bundle = Bundle.load(shutil.copytree(RANDOM_BUNDLE, tmp_path / "own"))
    with pytest.raises(
        EngineError, match=r"there is no openvino int8 engine of edit; .*: run `edgedit build .*openvino"
    ):
        create("openvino", bundle, "edit", precision="int8")
    with pytest.raises(EdgeditError, match="runtime openvino has no option provider; it has threads, precision"):
        create("openvino", bundle, "edit", provider="cuda")
    flip(bundle.path / "graphs" / "edit.onnx")
    with pytest.raises(BundleError, match=r"graphs/edit\.onnx"):
        create("openvino", bundle, "edit")


def test_an_int8_engine(tmp_path: Path, photos: np.ndarray) -> None:
    bundle = Bundle.load(shutil.copytree(RANDOM_BUNDLE, tmp_path / "own"))
    known = certification_inputs(bundle, "int8", Faces(last=photos[:2], others=photos[2:4]), single=True)
    manifest = build(
        bundle.path, runtime="openvino", precision="int8", graphs=["edit"], fit=known.fit, peaks=known.peaks
    )
    assert (manifest.folder, manifest.built.library) == ("openvino-cpu-int8", "OpenVINO")
    entry = manifest.graphs["edit"]
    assert entry.proof.share > 0.5 and entry.certificate is not None and entry.certificate["passed"]
    folder = bundle.path / "engines" / manifest.folder
    layers = json.loads((folder / str(entry.layers)).read_text())["layers"]
    assert {layer["precision"] for layer in layers if layer.get("macs")} == {"int8", "float32"}
    assert "float16" not in {tensor["dtype"] for layer in layers for tensor in layer["inputs"]}

    plain, engine = (create("openvino", bundle, "edit", threads=1, precision=precision) for precision in (None, "int8"))
    session = EditSession(bundle, "openvino", threads=1)
    inversion = session.invert(photos[:2])
    family = bundle.family
    feeds = {name: inversion.array(name) for name in inversion.names}
    feeds["delta_w"] = np.zeros((2, family.w_rows, family.style_dim), np.float32)
    feeds["style_delta"] = np.zeros((2, sum(family.style_channels)), np.float32)
    ours, theirs = (runtime.run(feeds)["image"].astype(float) for runtime in (engine, plain))
    error = np.square(ours - theirs).mean()
    # It is as near as the certificate says, and rounded to 8 bits nevertheless.
    assert 0 < error and 10 * np.log10(255**2 / error) > entry.certificate["images"]["psnr"]["worst"] - 6
    with pytest.raises(EngineError, match="FP16 gains nothing on a CPU; build int8 or fp32"):
        build(bundle.path, runtime="openvino", precision="fp16", graphs=["edit"])
    with pytest.raises(EngineError, match="unknown target 'cuda'; OpenVINO runs on cpu"):
        build(bundle.path, runtime="openvino", target="cuda", precision="fp32", graphs=["edit"])


def test_its_telemetry_is_not_even_imported() -> None:
    code = (
        "import sys, engines.runtimes.openvino; print([m for m in sys.modules if m.startswith('openvino_telemetry.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
