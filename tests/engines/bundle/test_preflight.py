from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from edgedit.cli import main
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.engine_manifest import EngineManifest
from engines.bundle.folders import EngineFolder
from engines.bundle.preflight import HostInfo, build_command, check_compatible, check_current, rebuild_command
from engines.contracts import PARTS, PIPELINES
from engines.errors import EngineError
from tests.engines.conftest import write_tiny
from tests.engines.engine_folders import write_engine

RTX = "tensorrt-rtx-sm86-fp16"


@pytest.fixture
def bundle_copy(tiny_bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle_path, tmp_path / "tiny"))


def manifest_with(path: Path, runtime: str = "tensorrt", target: str = "sm86", **built: object) -> EngineManifest:
    return EngineFolder.at(write_engine(path, runtime, target, **built)).manifest


def test_the_refusal_says_built_for_what_found_what_and_what_to_run(bundle_copy: Path) -> None:
    manifest = manifest_with(bundle_copy)
    with pytest.raises(EngineError) as caught:
        check_compatible(manifest, HostInfo("TensorRT", "11.3.0", "8.9"), "my bundle")
    assert str(caught.value) == (
        "engines/tensorrt-sm86-fp16 was built for SM86 by TensorRT 11.4.0, found SM89 and TensorRT 11.3.0: run "
        "`edgedit build -b 'my bundle' --runtime tensorrt --target sm89 --precision fp16 --graph edit invert "
        "--batch-range 1:1:8`"
    )
    check_compatible(manifest, HostInfo("TensorRT", "11.4.0", "8.6"))


@pytest.mark.parametrize(
    ("runtime", "built", "found", "message"),
    [
        ("tensorrt", {}, HostInfo("TensorRT", "11.4.0", "8.9"), "found SM89: run .*--target sm89"),
        ("tensorrt", {}, HostInfo("TensorRT", "11.4.1", "8.6"), "found TensorRT 11.4.1: run .*--target sm86"),
        ("tensorrt", {}, HostInfo("TensorRT-RTX", "11.4.0", "8.6"), "found TensorRT-RTX 11.4.0: run"),
        ("tensorrt", {}, HostInfo("TensorRT", "11.4.0"), "found no GPU: run it where there is one, or on the CPU"),
        ("tensorrt", {}, HostInfo("TensorRT", "11.4.0.0", "8.6"), None),
        (
            "tensorrt",
            {"version": "11.4.0.24"},
            HostInfo("TensorRT", "11.4.0.25", "8.6"),
            r"found TensorRT 11\.4\.0\.25",
        ),
        ("tensorrt", {"hardware_compatible": True}, HostInfo("TensorRT", "11.4.0", "12.0"), None),
        ("tensorrt", {"hardware_compatible": True}, HostInfo("TensorRT", "11.4.0", "8.0"), None),
        ("tensorrt", {"hardware_compatible": True}, HostInfo("TensorRT", "11.4.0", "7.5"), "found SM75"),
        ("tensorrt-rtx", {"hardware_compatible": True}, HostInfo("TensorRT-RTX", "11.4.0", "8.9"), "found SM89"),
        (
            "tensorrt",
            {"hardware_compatible": True, "flags": {"hardware": "same-compute-capability"}},
            HostInfo("TensorRT", "11.4.0", "8.9"),
            "found SM89: run .*--hardware same-compute-capability",
        ),
        ("tensorrt", {"version_compatible": True}, HostInfo("TensorRT", "11.10.0", "8.6"), None),
        ("tensorrt", {"version_compatible": True}, HostInfo("TensorRT", "11.3.9", "8.6"), r"found TensorRT 11\.3\.9"),
        ("tensorrt", {"version_compatible": True}, HostInfo("TensorRT", "12.0.0", "8.6"), r"found TensorRT 12\.0\.0"),
        ("tensorrt", {"version_compatible": True, "version": "10.12.0"}, HostInfo("TensorRT", "11.0.0", "8.6"), None),
        ("tensorrt-rtx", {"version_compatible": True}, HostInfo("TensorRT-RTX", "11.5.0", "8.6"), r"found .* 11\.5\.0"),
        ("tensorrt", {"driver_floor": "580.65"}, HostInfo("TensorRT", "11.4.0", "8.6", "580.126.3"), None),
        ("tensorrt", {"driver_floor": "580.65"}, HostInfo("TensorRT", "11.4.0", "8.6", None), None),
        (
            "tensorrt",
            {"driver_floor": "580.65"},
            HostInfo("TensorRT", "11.4.0", "8.6", "575.99"),
            r"needs NVIDIA driver 580\.65 or newer, found 575\.99: update the driver",
        ),
    ],
)
def test_compatibility(
    bundle_copy: Path, runtime: str, built: dict[str, object], found: HostInfo, message: str | None
) -> None:
    manifest = manifest_with(bundle_copy, runtime, **built)
    if message is None:
        check_compatible(manifest, found)
    else:
        with pytest.raises(EngineError, match=message):
            check_compatible(manifest, found)


def test_what_is_bound_to_no_gpu_runs_without_one(bundle_copy: Path) -> None:
    manifest = manifest_with(bundle_copy, "onnxruntime", "cpu", version="1.24.1")
    check_compatible(manifest, HostInfo("ONNX Runtime", "1.31.0"))
    check_compatible(manifest, HostInfo("ONNX Runtime", "1.20.0", "8.9"))


def test_several_targets(bundle_copy: Path) -> None:
    manifest = manifest_with(bundle_copy, "tensorrt-rtx", "sm86+sm120")
    check_compatible(manifest, HostInfo("TensorRT-RTX", "11.4.0", "12.0"))
    with pytest.raises(EngineError, match=r"built for SM86 or SM120 by .* found SM89"):
        check_compatible(manifest, HostInfo("TensorRT-RTX", "11.4.0", "8.9"))
    assert "--target sm86,sm120 " in rebuild_command(manifest, "b")


def test_the_command_builds_the_same_again(bundle_copy: Path) -> None:
    manifest = manifest_with(
        bundle_copy, version_compatible=True, hardware_compatible=True, flags={"hardware": "ampere-plus"}
    )
    assert rebuild_command(manifest, "b", "sm89") == (
        "edgedit build -b b --runtime tensorrt --target sm89 --precision fp16 --graph edit invert "
        "--batch-range 1:1:8 --version-compatible --hardware ampere-plus"
    )
    flags = {"workspace": 10**6, "memory_budget": 2 * 10**9, "weight_streaming": True, "tf32": True, "refit": True}
    command = rebuild_command(manifest_with(bundle_copy, flags=flags), "b")
    assert command.endswith("--batch-range 1:1:8 --workspace 1000000 --memory-budget 2000000000 --tf32")
    command = rebuild_command(manifest_with(bundle_copy, flags={"weight_streaming": True}), "b")
    assert command.endswith("--batch-range 1:1:8 --weight-streaming")
    eight = manifest_with(bundle_copy).model_copy(update={"precision": "int8"})
    assert rebuild_command(eight, "b").endswith("--batch-range 1:1:8 --faces FACES")
    for graphs, pipelines in ((PIPELINES, "--graph pipelines"), (PARTS, "--graph split"), (["e4e"], "--graph e4e")):
        assert build_command("b", "tensorrt", "sm86", "fp16", graphs).endswith(pipelines)


def test_the_command_is_one_that_edgedit_takes(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its words are those of the verb: a bundle that is not there is all that stops it."""
    words = shlex.split(rebuild_command(manifest_with(bundle_copy), bundle_copy / "nowhere"))
    assert words[0] == "edgedit" and main(words[1:]) == 1
    assert "there is no such directory" in capsys.readouterr().err


def test_engines_of_another_export_are_refused(bundle_copy: Path, tmp_path: Path) -> None:
    folder = EngineFolder.at(write_engine(bundle_copy, graphs=("edit",)))
    check_current(folder.manifest, Bundle.load(bundle_copy))
    for file, what in ((WEIGHTS_FILE, "weights"), ("graphs/edit.onnx", "graph edit")):
        other = write_tiny(tmp_path / what.replace(" ", "-"))
        manifest = json.loads((other / "manifest.json").read_bytes())
        manifest["files"][file]["sha256"] = "0" * 64
        bundle = Bundle(other, Bundle.load(other).manifest.model_validate_json(json.dumps(manifest)))
        with pytest.raises(EngineError) as caught:
            check_current(folder.manifest, bundle)
        assert str(caught.value).startswith(
            f"tiny: engines/{RTX} was built from other {what} than this bundle has (the bundle was exported again "
            f"since): run `edgedit build -b {other} --runtime tensorrt-rtx --target sm86 "
        )
    fewer = Bundle.load(write_tiny(tmp_path / "fewer", graphs=("invert",)))
    with pytest.raises(EngineError, match="from other graph edit than"):
        check_current(folder.manifest, fewer)
