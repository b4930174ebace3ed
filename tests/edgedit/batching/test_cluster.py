"""Batches on a Ray of this machine: the same results, and none lost with a worker."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import edgedit
from edgedit.batching import cluster
from edgedit.batching.progress import Status
from edgedit.batching.worker import Outcome, Task
from engines.errors import EngineError, RuntimeUnavailableError
from tests.edgedit.conftest import Cli

EDITS: dict[str, Any] = {"smiling": {"smile": 2}, "old": {"age": 1.5}}
NAMES = [f"{number}.png" for number in range(12)]


@pytest.fixture
def photos(head: np.ndarray, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        Image.fromarray(np.roll(head, 9 * number, 1)).resize((64, 64)).save(folder / name)
    return folder


def results(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.png")}


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_give_the_same_results_also_if_one_is_killed(
    bundle_path: Path, photos: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"bundle": bundle_path, "aligned": True, "threads": 1}
    # Signatures hold numbers of chance.
    options["credentials"] = False
    edgedit.batch(photos, tmp_path / "here", EDITS, **options)
    killed: list[int] = []
    said: list[str] = []

    def kill(status: Status) -> None:
        if killed:
            return
        for process in psutil.Process().children(recursive=True):
            if "RemoteWorker" in " ".join(process.cmdline()):
                killed.append(process.pid)
                os.kill(process.pid, signal.SIGKILL)
                return

    options |= {"batch_size": 2, "ray": "local", "workers": 2}
    report = edgedit.batch(photos, tmp_path / "ray", EDITS, progress=kill, say=said.append, **options)
    assert killed and said == ["a worker was lost; its photos are done again"]
    assert (report.done, report.failures, report.results) == (12, (), 24)
    assert results(tmp_path / "ray") == results(tmp_path / "here")
    # No Ray is begun if there is nothing to do, and none goes on.
    assert edgedit.batch(photos, tmp_path / "ray", EDITS, **options).results == 0
    assert not [one for one in psutil.Process().children(recursive=True) if "ray" in one.name()]


@pytest.mark.ray
def test_a_cluster_that_is_not_there(bundle_path: Path, photos: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "edits.yaml").write_text("smiling: {smile: 2}")
    words = ("batch", photos, tmp_path / "out", "-e", tmp_path / "edits.yaml", "-b", bundle_path)
    assert "no Ray cluster at 127.0.0.1:9: " in cli(*words, "--ray", "127.0.0.1:9").error


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """A Ray that the caller of `edgedit.batch` has begun: it is taken, and left running."""
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    assert ray.is_initialized()
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.slow
def test_what_is_wrong_for_all_photos_ends_the_batch(
    own_ray: None, bundle_path: Path, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeUnavailableError, match="unknown runtime 'abacus'; there are"):
        edgedit.batch(photos, tmp_path / "out", EDITS, bundle=bundle_path, runtime="abacus", ray="auto", workers=1)


@pytest.mark.ray
@pytest.mark.slow
def test_a_photo_that_kills_its_workers_fails_alone(
    own_ray: None, bundle_path: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fragile(cluster.RemoteWorker):
        def process(self, tasks: list[Task]) -> list[Outcome]:
            if any(task.name == "7.png" for task in tasks):
                os._exit(1)
            return super().process(tasks)

    monkeypatch.setattr(cluster, "RemoteWorker", Fragile)
    options: dict[str, Any] = {"bundle": bundle_path, "aligned": True, "threads": 1}
    report = edgedit.batch(photos, tmp_path / "out", EDITS, batch_size=3, ray="auto", workers=2, **options)
    assert [(one.photo, one.failure.kind) for one in report.failures] == [("7.png", "worker lost")]
    assert set(results(tmp_path / "out")) == {f"{edit}/{name}" for edit in EDITS for name in NAMES if name != "7.png"}


def test_workers_fit_the_cluster() -> None:
    resources = {"CPU": 7.0, "GPU": 2.0, "memory": 1e9}
    assert cluster._room(resources, {"CPU": 2}, 0) == 3
    assert cluster._room(resources, {"CPU": 2, "GPU": 1}, 0) == 2
    assert cluster._room(resources, {"CPU": 2}, 1) == 1
    with pytest.raises(EngineError, match="room for 3 workers of 2 CPU each; name fewer --workers"):
        cluster._room(resources, {"CPU": 2}, 4)
    with pytest.raises(EngineError, match="room for 0 workers of 1 CPU and 1 GPU each"):
        cluster._room({"CPU": 8.0}, {"CPU": 1, "GPU": 1}, 0)


def test_without_ray_there_is_one_line(
    bundle_path: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeUnavailableError, match=r"--ray needs ray: pip install 'edgedit\[ray\]'"):
        edgedit.batch(photos, tmp_path / "out", EDITS, bundle=bundle_path, aligned=True, ray="local")
