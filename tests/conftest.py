"""What all tests share: the shared material, and reasons for skipping what this machine cannot run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from engines.libraries import LIBRARIES

if TYPE_CHECKING:
    from serving.local.install import Installation

# How long an example takes is no property of the code: a busy machine must not fail a test.
settings.register_profile("edgedit", deadline=None)
settings.load_profile("edgedit")

_ROOT = Path(__file__).resolve().parent.parent

# Processes of `pytest -n` share the cores: threads of each that wait for one another would take them from the others.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _denormals_are_numbers() -> Iterator[None]:
    """Training flushes denormals to zero in its process, which Hypothesis' floats would not survive."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)


@cache
def _compute_capabilities() -> frozenset[str]:
    if shutil.which("nvidia-smi") is None:
        return frozenset()
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset(found.stdout.split())


def _lacks_gpu() -> str | None:
    return None if _compute_capabilities() else "no NVIDIA GPU here (nvidia-smi finds none)"


def _lacks_trt() -> str | None:
    return _lacks_gpu() or (None if LIBRARIES["tensorrt"].installed else "the package tensorrt is not installed")


def _lacks_rtx() -> str | None:
    # Parsing and building need no GPU; a test that loads an engine is marked gpu as well.
    if LIBRARIES["tensorrt-rtx"].installed:
        return None
    return "TensorRT-RTX is not installed (pip install -r requirements/rtx.lock)"


def _lacks_triton() -> str | None:
    # Whether it can be installed shows when the first test asks for it.
    from serving.local.install import unsupported

    return unsupported()


def _lacks_ray() -> str | None:
    return None if find_spec("ray") else "Ray is not installed (pip install -e '.[ray]')"


def _lacks_browser() -> str | None:
    names = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable")
    named = os.environ.get("EDGEDIT_CHROMIUM")
    if (named and Path(named).is_file()) or any(map(shutil.which, names)):
        return None
    return "no Chromium here (not on PATH; EDGEDIT_CHROMIUM can name the binary)"


_LACKS = {
    "gpu": _lacks_gpu,
    "trt": _lacks_trt,
    "rtx": _lacks_rtx,
    "triton": _lacks_triton,
    "browser": _lacks_browser,
    "ray": _lacks_ray,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too (or set EDGEDIT_SLOW=1)")


@cache
def _names(file: Path, marker: str) -> bool:
    return f"mark.{marker}" in file.read_text()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # With -m and one of these markers alone, as in the README, files that do not name it are not imported: importing
    # them all takes longer than most tests.
    marker = config.getoption("markexpr")
    if marker not in _LACKS:
        return None
    files = collection_path.rglob("test_*.py") if collection_path.is_dir() else [collection_path]
    return not any(_names(file, marker) for file in files) or None


@pytest.hookimpl(tryfirst=True)  # before -m is looked at, so that all tests are
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    run_slow = config.getoption("--slow") or os.environ.get("EDGEDIT_SLOW") == "1"
    for item in items:
        marked = [marker for marker in _LACKS if item.get_closest_marker(marker)]
        if unnamed := [marker for marker in marked if not _names(item.path, marker)]:
            raise pytest.UsageError(f"{item.path} must name mark.{unnamed[0]} itself, for -m to find it")
        reasons = [reason for marker in marked if (reason := _LACKS[marker]())]
        if item.get_closest_marker("slow") and not run_slow:
            reasons.append("slow; run it with --slow or EDGEDIT_SLOW=1")
        if reasons:
            item.add_marker(pytest.mark.skip(reason=reasons[0]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """With -n, all tests of a file go to one process: two would make its fixtures twice."""
    from xdist.scheduler import LoadFileScheduling

    if config.getoption("dist") != "load":
        return None
    # Files in their order: those with the fewest tests, which would come last, are among the longest.
    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    for reason, count in Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped).items():
        terminalreporter.write_line(f"not run here: {count} tests: {reason}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared photos, weights and directions: EDGEDIT_SHARED, or `shared` beside the repository."""
    named = os.environ.get("EDGEDIT_SHARED")
    path = Path(named) if named else _ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"the shared material is not here ({'EDGEDIT_SHARED' if named else 'set EDGEDIT_SHARED'})")
    return path


@pytest.fixture(scope="session", autouse=True)
def _key_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Pictures are signed by a key of this run, and not by the one of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("key") / "credentials"
        patch.setattr("engines.photo.signer.local_folder", lambda: place)
        yield


@pytest.fixture
def no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no package index: pip has the wheels of the folder that this is, at first none."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("EDGEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


@pytest.fixture(scope="session")
def development_server() -> Installation:
    """The development server, installed into the cache folder when the first test needs it."""
    from engines.errors import RuntimeUnavailableError
    from serving.local.install import ensure

    try:
        return ensure()
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random bundle without the separate graphs, for servers of a test's own; not to be changed."""
    from tests.random_bundle import write_pipelines

    return write_pipelines(tmp_path_factory.mktemp("bundle") / "pipelines")
