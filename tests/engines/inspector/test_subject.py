"""Loading what is inspected, and refusing what is not fit for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engines.bundle import Bundle
from engines.errors import EdgeditError
from engines.inspector import load
from engines.inspector import subject as loading
from tests.engines.inspector.samples import CERTIFICATE, edit_report, engine_report, write_engine, write_report


@pytest.fixture
def bundle(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_path, tmp_path / "tiny"))


def refusal(path: Path, graph: str | None = None) -> str:
    with pytest.raises(EdgeditError) as caught:
        load(path, graph)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_engine_folder_with_all_it_says(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    invert = engine_report().model_copy(update={"graph": "invert"})
    folder = write_engine(bundle, [engine_report(), invert], CERTIFICATE)
    subject = load(folder)
    assert subject.graph == "edit" and subject.graphs == ("edit", "invert")
    assert subject.report == engine_report()
    assert subject.title == "tiny / tensorrt-rtx-sm86-fp16"
    assert subject.facts["built with"] == "TensorRT-RTX 1.7.1" and subject.facts["batch"] == "1 to 8, tuned for 1"
    certificate = subject.certificate or {}
    assert certificate["images psnr mean"] == "58.25" and certificate["passed"] == "yes"
    assert certificate["images lpips"] == "not measured"
    assert load(folder, "invert").graph == "invert"
    assert "has no graph 'edti'; it has edit, invert" in refusal(folder, "edti")
    monkeypatch.chdir(folder)
    assert load(Path(".")).graph == "edit"


def test_a_report_that_was_changed_is_not_parsed(bundle: Path) -> None:
    folder = write_engine(bundle, [engine_report()])
    file = folder / "edit.layers.json"
    file.write_bytes(file.read_bytes().replace(b"FP16", b"FP61").replace(b"float32", b"float16", 1))
    assert "is damaged" in refusal(folder)
    manifest = folder / "engine.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"sm86", b"sm89"))
    assert "engine.json does not match" in refusal(folder)


def test_an_engine_folder_outside_a_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    moved = shutil.move(write_engine(bundle, [engine_report()]), tmp_path / "alone")
    assert "is outside a bundle" in refusal(Path(moved))


def test_a_report_under_another_graphs_name_is_refused(bundle: Path) -> None:
    # The manifest vouches for the file, whose content is of another graph.
    folder = write_engine(bundle, [engine_report().model_copy(update={"graph": "invert"})], names=["edit"])
    assert "is of graph invert, not edit" in refusal(folder)


def test_a_bundles_own_graph(tiny_bundle_path: Path, tiny_bundle: Bundle) -> None:
    pytest.importorskip("onnx_ir", reason="reading ONNX graphs needs onnx-ir")
    subject = load(tiny_bundle_path, "generator")
    assert subject.report.source == "graph" and subject.title == "tiny / ONNX graph"
    assert {layer.precision for layer in subject.report.layers if layer.macs} == {"float32"}
    assert any(layer.operator == "ConvTranspose" and layer.macs for layer in subject.report.layers)
    assert set(subject.graphs) == set(tiny_bundle.manifest.graphs)
    assert load(tiny_bundle_path).graph == "edit"


def test_a_layer_report(tmp_path: Path) -> None:
    file = write_report(tmp_path / "report.json", edit_report())
    assert load(file).report == edit_report()
    assert load(file, "edit").title == "layer report (graph)"
    assert "is a report of graph edit, not invert: leave --graph out" in refusal(file, "invert")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("report.json", b"", "is not a layer report"),
        ("report.json", b"{}", "is not a layer report"),
        ("report.json", b"\xff\xfe", "is not a layer report"),
        ("engine.json", b"{}", "give the folder that it lies in"),
        ("edit.engine", b"x", "give a JSON file, an engine folder or a bundle"),
    ],
)
def test_wrong_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refusal(tmp_path / name)


def test_wrong_places(tmp_path: Path) -> None:
    assert "give an engine folder, a bundle, or a layer report" in refusal(tmp_path / "missing")
    assert "is neither an engine folder nor a bundle" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"milliseconds": float("inf")}, "has figures that no network has"),
        ({"macs": 10**40}, "has figures that no network has"),
        ({"weight_bytes": 2**63}, "has figures that no network has"),
    ],
)
def test_figures_that_no_network_has(tmp_path: Path, change: dict, message: str) -> None:
    data = edit_report().model_dump()
    data["layers"][3] |= change
    (tmp_path / "r.json").write_text(json.dumps(data))
    assert message in refusal(tmp_path / "r.json")


def test_empty_and_oversized_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = edit_report().model_copy(update={"layers": []})
    assert "has no layers" in refusal(write_report(tmp_path / "a.json", empty))
    file = write_report(tmp_path / "b.json", edit_report())
    monkeypatch.setattr(loading, "MAX_LAYERS", 10)
    assert "are more than the 10 that can be shown" in refusal(file)
    monkeypatch.setattr(loading, "MAX_REPORT_BYTES", 1000)
    assert "a layer report at most 1000" in refusal(file)
