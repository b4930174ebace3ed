"""The served repository: engines where Triton looks for them, nothing of the CPU's, everything of the Python models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from serving.deploy.engine_cache import EngineCache
from serving.deploy.errors import StartError
from serving.deploy.repository import ENGINE_SOURCE, assemble, read_config
from tests.serving.deploy.models import repository, runs, stand_in


def served(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_assembles_what_a_gpu_needs(tmp_path: Path) -> None:
    models, builder = repository(tmp_path / "models"), stand_in(tmp_path / "bin")
    cache = EngineCache(tmp_path / "plans")
    place = tmp_path / "run" / "models"
    (place / "gone").mkdir(parents=True)  # of a former start
    assert assemble(models, place, builder, cache) == ["edit"]
    files = {"edit/config.pbtxt", "edit/1/model.plan", "edit_session/config.pbtxt", "edit_session/1/model.py"}
    assert served(place) == files and not (place / "gone").exists()
    (command,) = runs(builder)
    shapes = ["--minShapes=x:1x2", "--optShapes=x:1x2", "--maxShapes=x:8x2"]
    assert command.split()[0] == "0"  # the GPU that it may see
    assert {"--stronglyTyped", "--noTF32", "--skipInference", *shapes} < set(command.split())
    assert assemble(models, place, builder, cache, tune_for=4) == ["edit"]
    assert "--optShapes=x:4x2" in runs(builder)[-1]
    assert assemble(models, place, builder, cache, tune_for=99) == ["edit"]
    assert "--optShapes=x:8x2" in runs(builder)[-1]
    assert assemble(models, place, builder, cache) == [] and served(place) == files


def test_a_memory_budget_bounds_the_builder_and_the_engine(tmp_path: Path) -> None:
    models, builder = repository(tmp_path / "models"), stand_in(tmp_path / "bin")
    cache, place = EngineCache(tmp_path / "plans"), tmp_path / "run"
    assemble(models, place, builder, cache)
    assert "--memPoolSize" not in runs(builder)[-1]
    # What was built without a bound may exceed it: it is built again.
    assert assemble(models, place, replace(builder, memory_budget=2**20), cache) == ["edit"]
    assert f"--memPoolSize=workspace:{2**20}B" in runs(builder)[-1].split()
    with pytest.raises(StartError, match=r"and EDGEDIT_MEMORY_BUDGET is .* MB; raise it"):
        assemble(models, place, replace(builder, memory_budget=1), cache)


def test_the_engine_has_the_name_for_its_gpu(tmp_path: Path) -> None:
    models = repository(tmp_path / "models")
    cache = EngineCache(tmp_path / "plans")
    assemble(models, tmp_path / "run", stand_in(tmp_path / "bin", ("sm89",)), cache)
    assert (tmp_path / "run" / "edit" / "1" / "model_sm89.plan").is_file()
    assert not (tmp_path / "run" / "edit" / "1" / "model.plan").exists()


def test_different_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, cache = repository(tmp_path / "models"), EngineCache(tmp_path / "plans")
    # 8.9 has a name of its own: both can be served, each built on the GPU it is for.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")
    builder = stand_in(tmp_path / "bin", ("sm90", "sm90", "sm89"))
    assemble(models, tmp_path / "run", builder, cache)
    names = {path.name for path in (tmp_path / "run" / "edit" / "1").iterdir()}
    assert names == {"model.plan", "model_sm89.plan"}
    assert sorted(line.split()[0] for line in runs(builder)) == ["GPU-a", "GPU-c"]
    with pytest.raises(StartError, match=r"the visible GPUs differ, and its config\.pbtxt names one plan for them"):
        assemble(models, tmp_path / "run", stand_in(tmp_path / "bin", ("sm90", "sm80")), cache)


def test_two_versions_of_a_model(tmp_path: Path) -> None:
    models, builder = repository(tmp_path / "models"), stand_in(tmp_path / "bin")
    (models / "edit" / "1").rename(models / "edit" / "3")
    repository(tmp_path / "other")
    (tmp_path / "other" / "edit" / "1" / "g.weights").write_bytes(b"\2" * 8)
    (tmp_path / "other" / "edit" / "1").rename(models / "edit" / "12")
    assemble(models, tmp_path / "run", builder, EngineCache(tmp_path / "plans"))
    assert sorted(path.name for path in (tmp_path / "run" / "edit").iterdir()) == ["12", "3", "config.pbtxt"]
    assert len(runs(builder)) == 2  # other weights, another engine


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    models, builder, cache = (
        repository(tmp_path / "models"),
        stand_in(tmp_path / "bin"),
        EngineCache(tmp_path / "plans"),
    )
    (models / "edit" / "1" / ENGINE_SOURCE).unlink()
    with pytest.raises(StartError, match=rf"{ENGINE_SOURCE} is missing: .* or set EDGEDIT_DEVICE=cpu"):
        assemble(models, tmp_path / "run", builder, cache)
    (models / "edit" / "config.pbtxt").write_text('name: "edit"\n')
    with pytest.raises(StartError, match="names no backend"):
        assemble(models, tmp_path / "run", builder, cache)
    (models / "edit" / "config.pbtxt").unlink()
    with pytest.raises(StartError, match=r"config\.pbtxt cannot be read"):
        assemble(models, tmp_path / "run", builder, cache)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StartError, match="holds no models"):
        assemble(tmp_path / "empty", tmp_path / "run", builder, cache)


def test_an_engine_stays_in_its_folder(tmp_path: Path) -> None:
    config = tmp_path / "edit" / "config.pbtxt"
    config.parent.mkdir()
    config.write_text('backend: "tensorrt"\ndefault_model_filename: "../../x.plan"\n')
    with pytest.raises(StartError, match="which is no file name"):
        read_config(config.parent)


def test_reads_what_serve_repo_writes(tmp_path: Path) -> None:
    """With several engines, as protobuf's text format prints a map."""
    pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    config = model_config_pb2.ModelConfig(name="edit", backend="tensorrt", max_batch_size=8)
    config.default_model_filename = "model.plan"
    config.cc_model_filenames.update({"8.9": "model_sm89.plan", "12.0": "model_sm120.plan"})
    config.parameters["backend"].string_value = 'backend: "python"'
    (tmp_path / "edit").mkdir()
    (tmp_path / "edit" / "config.pbtxt").write_text(text_format.MessageToString(config))
    found = read_config(tmp_path / "edit")
    assert found.tensorrt and found.max_batch == 8
    assert found.engine_file("sm89") == "model_sm89.plan"
    assert found.engine_file("sm120") == "model_sm120.plan"
    assert found.engine_file("sm90") == "model.plan"
