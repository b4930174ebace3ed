from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import EngineError, RuntimeUnavailableError
from engines.runtimes.backend import Backend, architecture, capability, current_capability, error_summary, load, targets

_ROOT = Path(__file__).resolve().parents[3]
KNOWN = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")


def resolve(asked: str, runtime: str = "tensorrt-rtx", here: tuple[int, int] | None = None) -> tuple[str, ...]:
    rtx = runtime == "tensorrt-rtx"
    return targets(asked, runtime, "TensorRT-RTX" if rtx else "TensorRT", KNOWN if rtx else (), here)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_what_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(
        RuntimeUnavailableError, match=r"TensorRT is not installed here: pip install 'edgedit\[tensorrt\]'"
    ):
        load("tensorrt")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("__version__ = '10.3.0'\nclass ILogger: pass\n", "TensorRT 10.3.0 is too old: engines need 10.12 or newer"),
        (
            "raise ImportError('libnvinfer.so.11: cannot open shared object file\\nmore')",
            "libnvinfer.so.11: cannot open",
        ),
        ("__version__ = '10.12.0.36'\nclass ILogger: pass\n", "fine"),
    ],
)
def test_installed_packages_that_will_not_do(tmp_path: Path, module: str, message: str) -> None:
    (tmp_path / "tensorrt.py").write_text(module)
    script = (
        "from engines.runtimes.backend import load\n"
        "from engines.errors import RuntimeUnavailableError\n"
        "try:\n    load('tensorrt'); print('fine')\nexcept RuntimeUnavailableError as error:\n    print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{_ROOT}"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert message in done.stdout and len(done.stdout.splitlines()) == 1, done.stderr


@given(st.lists(st.sampled_from(KNOWN), min_size=1), st.booleans())
def test_targets_stand_once_and_in_order(names: list[str], spaced: bool) -> None:
    found = resolve((" , " if spaced else ",").join(names).upper())
    assert set(found) == set(names)
    assert list(found) == [name for name in KNOWN if name in names]


@pytest.mark.parametrize(
    ("asked", "runtime", "here", "expected"),
    [
        ("current", "tensorrt-rtx", (8, 6), ("sm86",)),
        ("current", "tensorrt", (9, 0), ("sm90",)),
        ("sm87", "tensorrt", (8, 7), ("sm87",)),
        ("sm120", "tensorrt-rtx", None, ("sm120",)),
    ],
)
def test_a_target_that_is_built(
    asked: str, runtime: str, here: tuple[int, int] | None, expected: tuple[str, ...]
) -> None:
    assert resolve(asked, runtime, here) == expected


@pytest.mark.parametrize(
    ("asked", "runtime", "here", "message"),
    [
        ("sm77", "tensorrt-rtx", None, r"unknown target 'sm77'; .* sm75, sm80, sm86, sm89, sm120, sm121, current"),
        ("ampere", "tensorrt", (8, 6), "unknown target 'ampere'; TensorRT builds for current"),
        ("", "tensorrt-rtx", None, "unknown target ''"),
        ("sm90", "tensorrt-rtx", (9, 0), r"does not build for sm90 \(H100 and H200\); TensorRT does"),
        ("sm87", "tensorrt-rtx", None, r"does not build for sm87 \(Jetson Orin\); TensorRT does"),
        ("current", "tensorrt-rtx", (9, 0), "does not build for sm90"),
        ("current", "tensorrt-rtx", None, r"needs an NVIDIA GPU .* name a target \(sm75"),
        ("current", "tensorrt", None, "build on the machine that will run it"),
        ("current,sm86", "tensorrt-rtx", (8, 6), "current stands alone"),
        ("sm89", "tensorrt", (8, 6), "builds for the GPU it runs on, which is sm86"),
        ("sm89", "tensorrt", None, "builds for the GPU it runs on, which is not there"),
    ],
)
def test_a_target_that_is_refused(asked: str, runtime: str, here: tuple[int, int] | None, message: str) -> None:
    with pytest.raises(EngineError, match=message) as refusal:
        resolve(asked, runtime, here)
    assert "\n" not in str(refusal.value)


def test_names_of_capabilities() -> None:
    assert [architecture(pair) for pair in ((8, 6), (12, 0))] == ["sm86", "sm120"]
    assert [capability(name) for name in ("sm86", "sm120")] == ["8.6", "12.0"]
    here = current_capability()
    assert here is None or here >= (5, 0)


def test_the_telling_error_is_found_among_the_noise() -> None:
    messages = [
        ("WARNING", "mind the gap"),
        ("ERROR", "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime"),
        ("ERROR", "ModelImporter.cpp:142: --- Begin node ---"),
        ("ERROR", "IBuilder: Error Code 1: Myelin (No tactic\nfor node a. In compileGraph at /_src/x/y.cpp:2012)"),
        ("ERROR", "and another"),
    ]
    assert error_summary(messages) == "IBuilder: Error Code 1: Myelin (No tactic for node a)"
    assert "catchCudaError" in error_summary(messages[:2])
    assert error_summary(messages[:1]) == "it does not say why"


@pytest.mark.rtx
def test_the_installed_package(rtx: Backend) -> None:
    assert set(KNOWN) <= set(rtx.architectures) and "sm90" not in rtx.architectures
    assert rtx.rtx and rtx.title == "TensorRT-RTX" and rtx.version[0].isdigit()
    assert rtx.distribution is not None and "rtx" in rtx.distribution
    assert rtx.driver_floor in ("525.60", "580.65")
    assert load("tensorrt-rtx") is rtx


@pytest.mark.rtx
def test_messages_are_heard_inside_the_block_only(rtx: Backend, tmp_path: Path) -> None:
    def stumble() -> None:
        network = rtx.api.Builder(rtx.logger).create_network(1)
        rtx.api.OnnxParser(network, rtx.logger).parse_from_file(str(tmp_path / "none.onnx"))

    with rtx.messages() as first:
        stumble()
    assert any("none.onnx" in text for severity, text in first if severity == "ERROR")
    assert not [text for severity, text in first if severity == "VERBOSE"]
    count = len(first)
    stumble()
    with rtx.messages() as second:
        pass
    assert len(first) == count and second == []
