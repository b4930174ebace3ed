from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from pathlib import Path

import pytest

from engines.store import cache_folder, lock


def test_where_caches_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LOCALAPPDATA", "EDGEDIT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform == "linux":
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / ".cache" / "edgedit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edgedit"
    monkeypatch.setenv("EDGEDIT_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def _count(folder: Path, times: int) -> None:
    """Adds one to a number in a file, which loses counts where two do it at once."""
    for _ in range(times):
        with lock(folder / ".lock"):
            number = folder / "number"
            number.write_text(str(int(number.read_text()) + 1))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    others = [multiprocessing.get_context("spawn").Process(target=_count, args=(tmp_path, 200)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert (tmp_path / "number").read_text() == "400"


def test_who_waits_is_told(tmp_path: Path) -> None:
    waiting, entered = threading.Event(), threading.Event()
    owners: list[str] = []

    def wait(owner: str) -> None:
        owners.append(owner)
        waiting.set()

    def enter() -> None:
        with lock(tmp_path / ".lock", wait):
            entered.set()

    other = threading.Thread(target=enter)
    with lock(tmp_path / ".lock", lambda owner: pytest.fail("nobody else is there")):
        other.start()
        assert waiting.wait(300) and not entered.is_set()
    other.join()
    assert entered.is_set() and owners == [str(os.getpid())]
