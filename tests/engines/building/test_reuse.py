from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from engines.building.build import build
from engines.building.builder import BuildOptions
from engines.building.reuse import files_of
from engines.bundle import Bundle
from engines.bundle.engine_manifest import (
    ENGINE_FILE,
    EngineManifest,
    OptimizationProfile,
    engine_manifest_bytes,
    parse_engine_manifest,
)
from engines.bundle.folders import EngineFolder
from engines.contracts import PARTS, PIPELINES
from tests.engines.building.conftest import write_small
from tests.engines.engine_folders import flip, seal

_ROOT = Path(__file__).resolve().parents[3]
NAME = "onnxruntime-cpu-fp32"


def ort(path: Path, *graphs: str, **options: Any) -> tuple[EngineManifest, list[str]]:
    """A build that is over in a moment, and the lines on what was kept and what was not."""
    lines: list[str] = []
    manifest = build(path, runtime="onnxruntime", precision="fp32", graphs=graphs, progress=lines.append, **options)
    return manifest, [line for line in lines if f"engines/{NAME}" in line]


def amend(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrites engine.json as another build might have written it."""
    manifest = parse_engine_manifest((folder / ENGINE_FILE).read_bytes(), folder.name).model_dump(mode="json")
    change(manifest)
    seal(folder, engine_manifest_bytes(EngineManifest.model_validate(manifest)))


def sound(path: Path) -> EngineManifest:
    """The folder's manifest, once all that it lists is as it says and nothing else is there."""
    folder = EngineFolder.load(Bundle.load(path), NAME)
    assert folder.verify() == []
    return folder.manifest


def test_building_one_pipeline_again_keeps_the_others(own_bundle: Path) -> None:
    before, lines = ort(own_bundle, "pipelines", command="edgedit build small")
    assert lines == []
    folder = own_bundle / "engines" / NAME
    contents = {file: (folder / file).read_bytes() for file in before.files}
    profile = OptimizationProfile(min=2, opt=2, max=2)
    after, lines = ort(own_bundle, "edit", options=BuildOptions(profile=profile), command="edgedit build small --x")
    assert lines == [f"invert, reconstruct of engines/{NAME}: kept"]
    assert list(after.graphs) == list(PIPELINES) and sound(own_bundle) == after
    assert after.graphs["edit"].profile == profile
    for graph in ("invert", "reconstruct"):
        assert after.graphs[graph] == before.graphs[graph]
        assert files_of(after, graph) == files_of(before, graph) != []
        assert all((folder / file).read_bytes() == contents[file] for file in files_of(after, graph))
    assert after.built.command == "edgedit build small && edgedit build small --x"
    again, _ = ort(own_bundle, "edit", command="edgedit build small --x")
    assert again.built.command == after.built.command


def test_a_folder_grows_to_all_graphs(own_bundle: Path) -> None:
    """`editor` is not taken for a file of `edit`."""
    for names in (("editor",), ("edit",), ("split", "invert"), ("pipelines",)):
        manifest, _ = ort(own_bundle, *names)
    assert list(manifest.graphs) == [*PIPELINES, *PARTS] and sound(own_bundle) == manifest
    owned = [file for graph in manifest.graphs for file in files_of(manifest, graph)]
    assert sorted(owned) == sorted(manifest.files)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m["built"].update(version="1.2.3"), r"built by ONNX Runtime 1\.2\.3, and this is ONNX Runtime \d"),
        (lambda m: m["built"]["tools"].update(edgedit="9.9"), "built by another version of edgedit"),
        (lambda m: m["built"]["flags"].update(tf32=True), "built with other options"),
        (lambda m: m["built"].update(driver_floor="580.65"), "built with other options"),
        (lambda m: m.update(weights_sha256="0" * 64), "built from other weights than the bundle has now"),
    ],
)
def test_what_does_not_fit_is_dropped_with_one_line(
    own_bundle: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    ort(own_bundle, "pipelines")
    amend(own_bundle / "engines" / NAME, change)
    manifest, lines = ort(own_bundle, "edit", command="edgedit build small")
    assert list(manifest.graphs) == ["edit"] and sound(own_bundle) == manifest
    (line,) = lines
    assert line.startswith(f"invert, reconstruct of engines/{NAME}: not kept, built ")
    assert re.search(reason, line)
    assert manifest.built.command == "edgedit build small"


def test_a_graph_that_the_bundle_has_changed_is_dropped_and_the_others_stay(own_bundle: Path) -> None:
    ort(own_bundle, "pipelines")
    old = "0" * 64
    amend(own_bundle / "engines" / NAME, lambda m: m["graphs"]["invert"].update(source_sha256=old))
    manifest, lines = ort(own_bundle, "edit")
    assert list(manifest.graphs) == ["edit", "reconstruct"] and sound(own_bundle) == manifest
    assert lines == [
        f"reconstruct of engines/{NAME}: kept",
        f"invert of engines/{NAME}: not kept, built from another graph than the bundle has now",
    ]


def test_a_damaged_engine_is_dropped_and_never_given_a_new_digest(own_bundle: Path) -> None:
    before, _ = ort(own_bundle, "pipelines")
    flip(own_bundle / "engines" / NAME / before.graphs["invert"].file)
    manifest, lines = ort(own_bundle, "edit")
    assert list(manifest.graphs) == ["edit", "reconstruct"] and sound(own_bundle) == manifest
    assert "invert.onnx is damaged" in lines[1] and len(lines) == 2


def test_a_folder_that_cannot_be_read_is_replaced(own_bundle: Path) -> None:
    ort(own_bundle, "pipelines")
    flip(own_bundle / "engines" / NAME / ENGINE_FILE)
    manifest, (line,) = ort(own_bundle, "edit")
    assert list(manifest.graphs) == ["edit"] and sound(own_bundle) == manifest
    assert line.startswith(f"what engines/{NAME} held is not kept: ") and "engine.sha256" in line


def test_a_bundle_with_new_weights_keeps_nothing(tmp_path: Path) -> None:
    """The real case: the bundle is exported again around its engines."""
    first, second = write_small(tmp_path / "first"), tmp_path / "second"

    def other(name: str, model: onnx.ModelProto) -> None:
        model.graph.node[0].doc_string = "exported again"

    write_small(second, other)
    ort(first, "pipelines")
    shutil.copytree(first / "engines", second / "engines")
    manifest, (line,) = ort(second, "edit")
    assert list(manifest.graphs) == ["edit"] and "built from another graph" in line


_KILLED = """
import os, signal, sys
from engines.building import build as module
from engines.building.build import build
lower = module._lower
def killed(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
module._lower = killed
build(sys.argv[1], runtime="onnxruntime", precision="fp32", graphs=["edit"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_after_the_others_were_copied(own_bundle: Path) -> None:
    """What was there is there still, whole, and the copies are swept by the next build."""
    before, _ = ort(own_bundle, "pipelines")
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    done = subprocess.run([sys.executable, "-c", _KILLED, str(own_bundle)], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    hidden = [p for p in (own_bundle / "engines").iterdir() if p.name.startswith(f".{NAME}")]
    assert len(hidden) == 1 and (hidden[0] / "invert.onnx").exists()
    assert sound(own_bundle) == before
    manifest, _ = ort(own_bundle, "edit")
    assert list(manifest.graphs) == list(PIPELINES)
    assert [p.name for p in (own_bundle / "engines").iterdir()] == [NAME]


@pytest.mark.rtx
def test_engines_of_tensorrt_rtx_are_kept_and_certificates_with_them(own_bundle: Path) -> None:
    def fit(graph: str) -> tuple[frozenset[str], dict[str, Any] | None]:
        return frozenset(), {"psnr": 51.5}

    options: dict[str, Any] = {"runtime": "tensorrt-rtx", "target": "sm86", "precision": "fp32"}
    first = build(own_bundle, graphs=["reconstruct"], fit=fit, **options)
    second = build(own_bundle, graphs=["generator"], **options)
    assert list(second.graphs) == ["reconstruct", "generator"]
    assert second.graphs["reconstruct"] == first.graphs["reconstruct"]
    assert second.graphs["reconstruct"].certificate == {"psnr": 51.5}
    data = (own_bundle / "engines" / second.folder / "reconstruct.engine").read_bytes()
    assert hashlib.sha256(data).hexdigest() == first.files["reconstruct.engine"].sha256
    lines: list[str] = []
    streamed = BuildOptions(weight_streaming=True)
    third = build(own_bundle, graphs=["generator"], options=streamed, progress=lines.append, **options)
    assert list(third.graphs) == ["generator"]
    assert f"reconstruct of engines/{third.folder}: not kept, built with other options" in lines
    assert Bundle.load(own_bundle).verify() == []
