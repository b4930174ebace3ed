"""Methods as graphs: hand-made ones run here, and two methods are really exported."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from bench.table5.subjects import Exported, Setting, graphs_folder, write_graphs
from bench.table5.times import measure
from engines.errors import EdgeditError
from tests.bench.table5.conftest import SMALL
from tests.engines.conftest import TINY, write_tiny

# Ours has no encoder for as small a photo as the hand-made graphs take.
FAMILY = dataclasses.replace(TINY, encoder_size=(32, 32))
SETTING = Setting(family=FAMILY, how="onnxruntime", threads=1)


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    """Where two methods have been exported already."""
    for key in ("e4e", "ours"):
        bundle = write_tiny(tmp_path / f"{key}-bundle", FAMILY)
        folder = graphs_folder(tmp_path / "graphs", key, SETTING)
        shutil.copytree(bundle / "graphs", folder)
        for file in bundle.glob("*.safetensors"):
            shutil.copy(file, folder)
    return tmp_path / "graphs"


def test_an_edit_starts_from_the_inversion_that_stayed_on_the_device(graphs: Path) -> None:
    subject = Exported(graphs_folder(graphs, "ours", SETTING), SETTING)
    inversion = subject.invert()
    assert isinstance(inversion, dict) and set(inversion) == {"w", "feature", "w_e", "generator_feature"}
    edited = subject.edit()
    assert isinstance(edited, dict)
    image = edited["image"].numpy()
    assert image.shape == (1, *FAMILY.image_shape, 3) and image.dtype == np.uint8
    assert subject.finite() and subject.memory is None


def test_graphs_take_turns_as_methods_do(graphs: Path) -> None:
    result = measure(["e4e", "ours"], SETTING, passes=3, memory=False, graphs=graphs)
    assert [row["key"] for row in result["rows"]] == ["e4e", "ours"] and result["not_measured"] == {}
    assert all(len(row["edit"]["samples_ms"]) == 3 for row in result["rows"])
    assert result["how"] == "onnxruntime" and result["threads"] == 1


def test_a_method_that_cannot_be_exported_leaves_nothing(
    graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(method: object, folder: Path) -> None:
        (folder / "invert.onnx").write_bytes(b"half")
        raise EdgeditError("it does not fit")

    monkeypatch.setattr("bench.table5.subjects.export_graphs", broken)
    folder = graphs_folder(tmp_path / "new", "e4e", dataclasses.replace(SETTING, family=SMALL))
    with pytest.raises(EdgeditError, match="it does not fit"):
        write_graphs("e4e", dataclasses.replace(SETTING, family=SMALL), folder)
    assert list(folder.parent.iterdir()) == []


def test_graphs_of_another_family_are_not_found(graphs: Path) -> None:
    other = dataclasses.replace(SETTING, family=SMALL, seed=1)
    assert {graphs_folder(graphs, "e4e", one) for one in (SETTING, other)} == {
        graphs / f"{FAMILY.name}-seed-0" / "e4e",
        graphs / "small-seed-1" / "e4e",
    }


@pytest.mark.slow
def test_methods_that_are_really_exported(tmp_path: Path) -> None:
    setting = Setting(family=SMALL, how="onnxruntime", threads=1)
    result = measure(["e4e", "ours"], setting, passes=2, graphs=tmp_path)
    assert [row["key"] for row in result["rows"]] == ["e4e", "ours"]
    assert all(row["peak_memory_bytes"] is None or row["peak_memory_bytes"] > 1e6 for row in result["rows"])
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.onnx")}
    assert {path.name for path in kept} >= {"invert.onnx", "edit.onnx"}
    measure(["e4e"], setting, passes=1, memory=False, graphs=tmp_path)
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.onnx")}
