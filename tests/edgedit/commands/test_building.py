from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgedit.commands.building import Build
from engines.bundle.engine_manifest import EngineManifest
from engines.errors import RuntimeUnavailableError
from engines.runtimes.backend import load
from tests.edgedit.conftest import Cli

FP32 = ("--runtime", "onnxruntime", "--precision", "fp32")


def test_build(cli: Cli, own_bundle: Path, tmp_path: Path) -> None:
    done = cli("build", "-b", own_bundle, *FP32, "--graph", "edit", "reconstruct", "--json", tmp_path / "b")
    assert done.status == 0 and done.err == ""
    for text in ("edit (1 of 2): fp32 for onnxruntime cpu", "100.00% of", "wrote engines/onnxruntime-cpu-fp32: "):
        assert text in done.out
    summary = json.loads((tmp_path / "b").read_text())
    assert (summary["folder"], summary["bundle"]) == ("onnxruntime-cpu-fp32", str(own_bundle))
    manifest = EngineManifest.model_validate_json(json.dumps(summary["manifest"]))
    assert list(manifest.graphs) == ["edit", "reconstruct"]
    assert manifest.built.command == (
        "edgedit build --bundle own --runtime onnxruntime --precision fp32 --graph edit reconstruct"
    )
    folder = own_bundle / "engines" / "onnxruntime-cpu-fp32"
    assert EngineManifest.model_validate_json((folder / "engine.json").read_bytes()) == manifest
    # The bundle is as whole as before.
    assert cli("info", "-b", own_bundle, "--verify").status == 0


@pytest.mark.rtx
def test_build_with_rtx(cli: Cli, own_bundle: Path) -> None:
    try:
        load("tensorrt-rtx")
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))
    words = ("--target", "sm86", "--precision", "fp32", "--graph", "reconstruct", "--batch-range", "2")
    done = cli("build", "-b", own_bundle, *words, "--memory-budget", "1G")
    assert done.status == 0, done.err
    manifest = EngineManifest.model_validate_json(
        (own_bundle / "engines" / "tensorrt-rtx-sm86-fp32" / "engine.json").read_bytes()
    )
    assert manifest.graphs["reconstruct"].profile.max == 2
    assert manifest.built.flags["memory_budget"] == 10**9 and manifest.built.flags["weight_streaming"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--target", "tpu"), "unknown target 'tpu'; ONNX Runtime runs on cpu, cuda"),
        (("--graph", "most"), "unknown graph 'most'; there are all, pipelines, split, invert, edit, reconstruct"),
        (("--batch-range", "8:1"), "--batch-range 8:1 must be MIN:OPT:MAX"),
        (("--workspace", "lots"), "--workspace lots is not a size; write it as 512M or 2G"),
        (("--memory-budget", "0"), "--memory-budget 0 is not a size"),
        (("--precision", "int8"), "--precision int8 takes the ranges of activations from photos: give a folder or tar"),
        (("--precision", "fp8"), "--precision fp8 takes the ranges of activations from photos"),
        (("--precision", "fp8", "--target", "sm86"), "sm86 has no fp8 arithmetic, which needs sm89 or newer"),
    ],
)
def test_builds_that_are_refused(cli: Cli, own_bundle: Path, words: tuple[str, ...], message: str) -> None:
    done = cli("build", "-b", own_bundle, *FP32, *words)
    assert done.status == 1 and message in done.error
    assert not (own_bundle / "engines").exists()


def test_words_that_do_not_exist(cli: Cli, own_bundle: Path) -> None:
    for words in (("--runtime", "tensorflow"), ("--precision", "fp4"), ("--hardware", "any")):
        done = cli("build", "-b", own_bundle, *words)
        assert done.status == 2 and "see `edgedit build --help`" in done.error


def test_the_command_that_repeats_a_build(tmp_path: Path) -> None:
    verb = Build(bundle=tmp_path / "demo", json=tmp_path / "x.json", target="sm86", memory_budget="2G", refit=True)
    assert verb.command() == "edgedit build --bundle demo --target sm86 --memory-budget 2G --refit"


def test_estimate(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    done = cli("estimate", "-b", bundle_path, "--gpu", "rtx3090", "--batch", "4", "--json", tmp_path / "p.json")
    assert done.status == 0 and done.err == ""
    for text in ("faces on GeForce RTX 3090 (sm86, fp16 71 TFLOP/s, 936 GB/s, 24 GB), batch 4", "invert", "fits"):
        assert text in done.out
    summary = json.loads((tmp_path / "p.json").read_text())
    assert summary["figures"]["fp16_tflops"] == 71 and list(summary["graphs"]) == ["invert", "edit", "reconstruct"]
    for row in summary["graphs"].values():
        assert row["fits"] and row["floor_ms"] == max(row["compute_ms"], row["memory_ms"]) > 0
        assert row["needed_bytes"] == row["weight_bytes"] + row["interface_bytes"] + row["activation_bytes"]


def test_an_estimate_in_eight_bits_says_where_its_figures_are_from(cli: Cli, bundle_path: Path) -> None:
    done = cli("estimate", "-b", bundle_path, "--gpu", "rtx3080", "--precision", "int8")
    assert done.status == 0 and "(sm86, int8 238 TOP/s, 760 GB/s, 10 GB)" in done.out
    assert "figures: NVIDIA Ampere GA102 GPU Architecture whitepaper; they were not compared with it" in done.out
    done = cli("estimate", "-b", bundle_path, "--gpu", "rtx4090", "--precision", "fp8")
    assert done.status == 0 and "fp8 330.3 TFLOP/s" in done.out
    assert "figures: NVIDIA Ada GPU Architecture whitepaper." in done.out
    assert "sm86 has no fp8 arithmetic" in cli("estimate", "-b", bundle_path, "--precision", "fp8").error


def test_estimates_that_are_refused(cli: Cli, bundle_path: Path) -> None:
    assert "unknown GPU 'gtx1080'; there are a100, " in cli("estimate", "-b", bundle_path, "--gpu", "gtx1080").error
    assert "--batch must be 1 or more" in cli("estimate", "-b", bundle_path, "--batch", "0").error
    assert "there is no graph 'encoder'" in cli("estimate", "-b", bundle_path, "--graph", "split").error
