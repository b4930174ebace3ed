"""TensorRT-RTX keeps the timing cache's functions, though what they hold is empty: enough for the file's handling."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from engines.building import timing
from engines.building.timing import TimingCache
from engines.runtimes.backend import Backend

pytestmark = pytest.mark.rtx


@pytest.fixture
def config(rtx: Backend) -> Any:
    config = rtx.api.Builder(rtx.logger).create_builder_config()
    return config


def test_a_build_hands_its_cache_to_the_next(rtx: Backend, config: Any, tmp_path: Path) -> None:
    cache = TimingCache(rtx, "sm86", tmp_path / "new")
    assert not cache.attach(config)
    cache.keep(config)
    assert [f.name for f in (tmp_path / "new").iterdir()] == [f"timing-tensorrt-rtx-{rtx.version}-sm86.cache"]
    assert cache.attach(rtx.api.Builder(rtx.logger).create_builder_config())


def test_caches_are_of_one_version_and_architecture(rtx: Backend, tmp_path: Path) -> None:
    assert TimingCache(rtx, "sm86", tmp_path).file != TimingCache(rtx, "sm89", tmp_path).file


def test_the_folder_is_bounded(rtx: Backend, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.txt").write_text("stays")
    for index in range(timing.MAX_FILES + 3):
        cache = TimingCache(rtx, f"sm{index}", tmp_path)
        cache.attach(config)
        cache.keep(config)
        os.utime(cache.file, (index, index))
    kept = sorted(int(f.stem.rpartition("sm")[2]) for f in tmp_path.glob("timing-*"))
    assert kept == list(range(3, timing.MAX_FILES + 3)) and (tmp_path / "mine.txt").exists()

    monkeypatch.setattr(timing, "MAX_BYTES", 10)
    cache = TimingCache(rtx, "sm10", tmp_path)
    assert cache.file.stat().st_size > 10 and not cache.attach(config) and not cache.file.exists()
    cache.keep(config)
    assert not cache.file.exists()


def test_a_cache_that_cannot_be_written_loses_no_engine(rtx: Backend, config: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = TimingCache(rtx, "sm86", tmp_path / "file")
    cache.attach(config)
    cache.keep(config)
    assert (tmp_path / "file").read_text() == "in the way"
