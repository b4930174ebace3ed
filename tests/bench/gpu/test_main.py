"""The whole queue, on a CPU: what it measures there is nothing, that it does all it says is everything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from bench.gpu import accuracy
from bench.gpu.__main__ import JOBS, run
from bench.gpu.jobs import SLIDER
from bench.gpu.models import load_models
from bench.gpu.options import GpuBenchOptions
from bench.gpu.runtimes import Engine
from bench.gpu.table5 import HOWS
from bench.latency.result import read
from edgedit.demo import ASTRONAUT
from engines import family
from engines.building.gates import GATES
from engines.contracts import PIPELINES
from engines.errors import EdgeditError
from engines.libraries import LIBRARIES
from tests.bench.table5.conftest import SMALL
from tests.random_bundle import RANDOM_BUNDLE
from training import recipes
from training.losses.image import LossFiles
from training.recipes import Recipe


@pytest.fixture(scope="module")
def demo() -> str:
    return f"demo={RANDOM_BUNDLE}"


def options(out: Path, *jobs: str, **more: Any) -> GpuBenchOptions:
    tiny: dict[str, Any] = {
        "device": "cpu",
        "bundle": (f"demo={RANDOM_BUNDLE}",),
        "random": (),
        "passes": 2,
        "least": 0.0,
        "budget": 480.0,
    }
    return GpuBenchOptions(out=out, job=jobs, **(tiny | more))


def result(out: Path, job: str) -> dict[str, Any]:
    return json.loads((out / f"{job}.json").read_text())


def state(out: Path, job: str) -> dict[str, Any]:
    return json.loads((out / "state.json").read_text())["jobs"][job]


def test_latency_by_the_command_line(demo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results"
    words = ["--device", "cpu", "--budget", "300", "--out", str(out), "--bundle", demo, "--random", "--passes", "2"]
    words += ["--least", "0", "--job", "latency", "--row", "eager:fp32", "--job", "precisions", "--row", "eager:tf32"]
    command = [sys.executable, "-m", "bench.gpu", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    found = result(out, "latency")
    graphs = [*PIPELINES, SLIDER]
    assert [row["step"] for row in found["rows"]] == [f"demo {graph}" for graph in graphs]
    for step, graph in zip(found["rows"], graphs, strict=True):
        (row,) = step["rows"]
        assert (row["graph"], row["batch"], row["runtime"], row["precision"]) == (graph, 1, "eager", "fp32")
        assert row["speedup"] == 1 and row["p10_ms"] <= row["median_ms"]
        assert len(row["samples_ms"]) == row["passes"] == 2
        assert row["times_floor"] == row["median_ms"] / row["floor_ms"] and row["bound"] in ("compute", "memory")
        assert step["not_measured"] == {"eager+graph:fp32": "CUDA graphs need a CUDA device"}
    assert {step["not_measured"]["eager:tf32"] for step in result(out, "precisions")["rows"]} == {
        "TF32 is an arithmetic of NVIDIA GPUs"
    }
    assert "largest gap to the floor: " in done.stdout and "demo on " in done.stdout
    (file,) = out.glob("latency-demo-*.json")
    assert [row.graph for row in read(file).rows] == graphs
    assert "largest" not in (page := (out / "report.html").read_text()) and "eager:fp32" in page
    (about,) = found["runs"]
    assert {"command", "date", "versions", "host", "device", "ceilings"} == set(about)
    assert about["ceilings"]["products"]["fp32"] == about["ceilings"]["matmul_tflops"]
    assert about["ceilings"]["copy_gbs"] > 0 and about["ceilings"]["matmul_tflops"] > 0
    assert about["device"]["kind"] == "cpu" and "torch" in about["versions"]
    assert "--bundle demo=BUNDLE" in about["command"] and "--row eager:fp32" in about["command"]
    assert str(tmp_path) not in json.dumps(found) and str(RANDOM_BUNDLE) not in json.dumps(found)
    run(options(out, "latency", bundle=(demo,), row=("eager:fp32",)))
    assert capsys.readouterr().out.count("done by an earlier run") == len(graphs)
    assert result(out, "latency") == found


def test_table_5_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(family.FAMILIES, SMALL.name, SMALL)
    # Exporting takes longer than this suite may; its own test is with `bench.table5`.
    monkeypatch.setattr("bench.gpu.table5.HOWS", HOWS[:-1])
    words: dict[str, Any] = {"random": ("small",), "method": ("fs",), "passes": 3}
    run(options(tmp_path, "table5", **words))
    rows = {row["step"]: row for row in result(tmp_path, "table5")["rows"]}
    assert list(rows) == ["small eager FP32", "small eager FP16 channels-last"]
    for row in rows.values():
        assert [one["key"] for one in row["rows"]] == ["e4e", "fs"] and len(row["orders"]) == 3
        assert row["rows"][0]["ratio"] == 1 and row["rows"][1]["ratio"] > 0
    assert state(tmp_path, "table5")["small eager TF32"] == {
        "status": "skipped",
        "reason": "TF32 is an arithmetic of NVIDIA GPUs: say --device cuda, or leave TF32 out",
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--out", str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert "finds no CUDA device here: give --device cpu" in done.stderr


def test_runtimes_that_are_not_here_are_named(demo: str, tmp_path: Path) -> None:
    run(options(tmp_path, "runtimes", bundle=(demo,), batches=(1, 2)))
    found = state(tmp_path, "runtimes")
    assert found["demo ONNX Runtime, CPU"]["status"] == "done"
    others = {name: one for name, one in found.items() if name != "demo ONNX Runtime, CPU"}
    assert all(one["status"] == "skipped" and one["reason"] for one in others.values())
    assert "no CUDAExecutionProvider" in found["demo ONNX Runtime, CUDA"]["reason"]
    (row,) = result(tmp_path, "runtimes")["rows"]
    wanted = [(graph, batch) for graph in PIPELINES for batch in (1, 2)] + [(SLIDER, 1)]
    assert [(one["graph"], one["batch"]) for one in row["rows"]] == wanted
    for one in row["rows"]:
        assert one["passes"] == 2 and one["runtime"] == "onnxruntime cpu" and one["times_floor"] > 0
        # A ratio to PyTorch, measured in turns; a session's step has none.
        assert (one["speedup"] is None) == (one["graph"] == SLIDER)


@pytest.mark.slow
def test_scaling(demo: str, tmp_path: Path) -> None:
    run(options(tmp_path, "scaling", bundle=(demo,), passes=1, batches=(1, 2), edits=(1,)))
    rows = {row["step"]: row for row in result(tmp_path, "scaling")["rows"]}
    assert rows["demo reconstruct batches"]["weights"] == "the bundle's"
    assert [one["batch"] for one in rows["demo reconstruct batches"]["rows"]] == [1, 2]
    times = rows["demo encode once"]["times"]
    assert list(times) == ["1 edits, one inversion", "1 edits, an inversion each"]


def test_random_weights_are_nowhere_zero() -> None:
    (model,) = load_models((), ("demo-64",), "cpu")
    module = model.module("edit", "fp32")
    assert all(parameter.any() for parameter in module.parameters())
    assert model.about() == {"model": "demo-64", "family": "demo-64", "size": 64, "weights": "random"}
    # FP16 has weights of its own, laid out differently.
    assert next(model.module("edit", "fp16").parameters()) is not next(module.parameters())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    photo = Image.open(ASTRONAUT).crop((90, 0, 350, 260))
    (photos := tmp_path / "photos").mkdir()
    for index, image in enumerate((photo, photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
        image.save(photos / f"{index}.png")
    return photos


@pytest.mark.slow
def test_accuracy_of_fp16_beside_its_emulation(demo: str, tmp_path: Path) -> None:
    out = tmp_path / "results"
    # Without photos: edgedit's own.
    run(options(out, "accuracy", bundle=(demo,)))
    skipped = {name: one["reason"] for name, one in state(out, "accuracy").items() if one["status"] == "skipped"}
    assert set(skipped) >= {"demo TensorRT FP8", "demo TensorRT-RTX INT8", "demo ONNX Runtime, CUDA, FP16"}
    rows = result(out, "accuracy")["rows"]
    assert all("emulated on a CPU" in row["emulated"]["arithmetic"] for row in rows)
    found = {row["graph"]: row["certificate"] for row in rows}
    assert set(found) == set(PIPELINES)
    for certificate in found.values():
        assert certificate["photos"] == 2 and (certificate["nan"], certificate["inf"]) == (0, 0)
        assert "FP16 autocast on cpu" in certificate["arithmetic"] and "FP32 on CPU" in certificate["reference"]
    worst = found["reconstruct"]["images"]["psnr"]["worst"]
    assert 35 < worst < 99


@pytest.mark.slow
def test_accuracy_of_engines_in_eight_bits(
    demo: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one engine that runs without a GPU stands in for those that wait for one."""
    engine = Engine("ONNX Runtime, CPU, INT8", "onnxruntime", {"provider": "cpu"}, "int8")
    monkeypatch.setattr(accuracy, "ENGINES", (engine,))
    out = tmp_path / "results"
    run(options(out, "accuracy", bundle=(demo,), faces=photos, max_faces=1))
    row = next(row for row in result(out, "accuracy")["rows"] if row.get("runtime") == engine.name)
    assert set(row["certificates"]) == set(PIPELINES)
    for certificate in row["certificates"].values():
        assert certificate["passed"] and certificate["gates"] == GATES["int8"] and "INT8" in certificate["arithmetic"]


def test_fp8_asks_for_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    context: Any = SimpleNamespace(options=SimpleNamespace(on_gpu=True))
    monkeypatch.setattr(LIBRARIES["tensorrt"].__class__, "installed", True)
    for capability, precision, reason in (
        ((8, 6), "fp8", "sm86 has no fp8"),
        ((8, 9), "fp8", ""),
        ((8, 6), "int8", ""),
    ):
        monkeypatch.setattr("engines.runtimes.backend.current_capability", lambda found=capability: found)
        assert reason in (Engine("e", "tensorrt", {}, precision).lacks(context) or "")
        assert bool(reason) == bool(Engine("e", "tensorrt", {}, precision).lacks(context))


def test_training_stops_travels_and_goes_on(
    small_recipe: Recipe,
    photo_folder: Path,
    loss_files: LossFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(recipes.RECIPES, "small", lambda: small_recipe)
    files = {"faces": photo_folder, "lpips": loss_files.lpips, "identity": loss_files.identity, "recipe": "small"}
    out = tmp_path / "results"
    run(options(out, "training", training_share=1e-9, **files))
    assert state(out, "training")["generator"] == {
        "status": "skipped",
        "reason": "training has used its share of the time",
    }
    assert state(out, "training")["e4e"]["reason"] == "the generator is not finished"
    run(options(out, "training", run=tmp_path / "run", training_share=1.0, **files))
    found = state(out, "training")
    assert [found[stage]["status"] for stage in ("generator", "e4e", "encoder")] == ["done"] * 3
    assert found["directions"]["reason"] == "needs --age-gender and --expression"
    assert found["editor"]["reason"] == "there are no directions"
    rows = {row["step"]: row for row in result(out, "training")["rows"]}
    assert [rows["encoder"][key] for key in ("from_step", "to_step", "of_steps")] == [0, 2, 2]
    shards = list((out / "checkpoints").rglob("*.safetensors"))
    assert shards and all(file.stat().st_size < 15_000_000 for file in shards)
    # Another machine: the run folder is not there, the results are.
    run(options(out, "training", run=tmp_path / "elsewhere", training_share=1.0, **files))
    assert (tmp_path / "elsewhere" / "encoder" / "checkpoint" / "meta.json").is_file()
    assert sorted(rows) == sorted(row["step"] for row in result(out, "training")["rows"])


def test_what_is_asked_wrongly(tmp_path: Path) -> None:
    for wrong, message in (
        ({"bundle": ("demo",)}, "--bundle demo must be NAME=DIRECTORY"),
        ({"random": ("teapot",)}, "unknown model family 'teapot'"),
        ({"budget": 0.0}, "--budget must be above 0"),
    ):
        with pytest.raises(EdgeditError, match=message):
            run(options(tmp_path / "results", "latency", **wrong))
    with pytest.raises(EdgeditError, match=r"there is no method 'tea'; there are e4e"):
        run(options(tmp_path / "results", "table5", method=("tea",)))
    with pytest.raises(EdgeditError, match=f"there is no job 'tea'; there are {', '.join(JOBS)}"):
        run(options(tmp_path / "results", "tea"))
