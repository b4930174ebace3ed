"""Engines are built once, kept whole, and never taken for another graph, TensorRT or GPU."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from serving.deploy.engine_cache import EngineCache, EngineKey, graph_digest
from serving.deploy.errors import StartError
from serving.deploy.onnx_file import read
from tests.serving.deploy.models import graph, runs, stand_in

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def key(tmp_path: Path) -> EngineKey:
    source = read(graph(tmp_path / "edit" / "1"))
    return EngineKey("edit", graph_digest(source), "11.2.0.5", "sm90", (1, 1, 8))


def test_builds_once_and_remembers(tmp_path: Path, key: EngineKey) -> None:
    source, builder, said = read(tmp_path / "edit" / "1" / "model.plan.onnx"), stand_in(tmp_path / "bin"), []
    cache = EngineCache(tmp_path / "plans", said.append)
    assert cache.provide(key, source, builder, tmp_path / "model.plan")
    assert not cache.provide(key, source, builder, tmp_path / "again.plan")
    assert len(runs(builder)) == 1
    assert (tmp_path / "again.plan").read_bytes() == (tmp_path / "model.plan").read_bytes() != b""
    assert [line.split(",")[0] for line in said] == [
        "edit: building for sm90 with TensorRT 11.2.0.5 (trtexec)",
        "edit: built",
    ]
    record = json.loads((tmp_path / "plans" / f"{key.stem}.json").read_text())
    assert record["sha256"] == hashlib.sha256((tmp_path / "model.plan").read_bytes()).hexdigest()
    assert record["graph_sha256"] == key.graph_sha256 and record["tensorrt"] == "11.2.0.5" and record["sm"] == "sm90"


@pytest.mark.parametrize(
    "change", [{"tensorrt": "11.3.0.1"}, {"sm": "sm89"}, {"batch": (1, 8, 8)}, {"graph_sha256": "0" * 64}]
)
def test_another_key_is_another_engine(tmp_path: Path, key: EngineKey, change: dict[str, object]) -> None:
    source, builder = read(tmp_path / "edit" / "1" / "model.plan.onnx"), stand_in(tmp_path / "bin")
    cache = EngineCache(tmp_path / "plans")
    cache.provide(key, source, builder, tmp_path / "a.plan")
    assert not cache.fetch(replace(key, **change), tmp_path / "b.plan")
    assert not (tmp_path / "b.plan").exists()


def test_digest_covers_graph_and_weights(tmp_path: Path, key: EngineKey) -> None:
    folder = tmp_path / "edit" / "1"
    assert graph_digest(read(folder / "model.plan.onnx")) == key.graph_sha256
    weights = folder / "g.weights"
    weights.write_bytes(b"\1" + weights.read_bytes()[1:])
    assert graph_digest(read(folder / "model.plan.onnx")) != key.graph_sha256
    weights.write_bytes(bytes(8))
    assert graph_digest(read(folder / "model.plan.onnx")) == key.graph_sha256
    graph(folder, channels=3)
    weights.write_bytes(bytes(8))
    assert graph_digest(read(folder / "model.plan.onnx")) != key.graph_sha256


@pytest.mark.parametrize("damage", ["flip", "cut", "no plan", "no record", "half a record", "another's record"])
def test_damage_is_built_again(tmp_path: Path, key: EngineKey, damage: str) -> None:
    source, builder = read(tmp_path / "edit" / "1" / "model.plan.onnx"), stand_in(tmp_path / "bin")
    cache = EngineCache(tmp_path / "plans")
    cache.provide(key, source, builder, tmp_path / "a.plan")
    engine, record = (tmp_path / "plans" / f"{key.stem}.{end}" for end in ("plan", "json"))
    whole = engine.read_bytes()
    if damage == "flip":
        engine.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    elif damage == "cut":
        engine.write_bytes(whole[:-1])
    elif damage == "another's record":
        record.write_text(json.dumps({**json.loads(record.read_text()), "graph_sha256": "f" * 64}))
    else:
        {"no plan": engine.unlink, "no record": record.unlink, "half a record": lambda: record.write_text('{"mod')}[
            damage
        ]()
    assert cache.provide(key, source, builder, tmp_path / "b.plan")
    assert (tmp_path / "b.plan").read_bytes() == whole == engine.read_bytes()
    assert len(runs(builder)) == 2


def test_a_failed_build_leaves_nothing(tmp_path: Path, key: EngineKey) -> None:
    source, builder = read(tmp_path / "edit" / "1" / "model.plan.onnx"), stand_in(tmp_path / "bin")
    (tmp_path / "bin" / "fail").touch()
    cache = EngineCache(tmp_path / "plans")
    with pytest.raises(StartError) as raised:
        cache.provide(key, source, builder, tmp_path / "a.plan")
    assert str(raised.value).endswith("for sm90 by TensorRT 11.2.0.5 (trtexec): [E] Error[4]: no tactic for Conv_12")
    assert not (tmp_path / "a.plan").exists()
    assert [path.suffix for path in (tmp_path / "plans").iterdir()] == [".lock"]
    (tmp_path / "bin" / "fail").unlink()
    assert cache.provide(key, source, builder, tmp_path / "a.plan")


STARTER = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from serving.deploy.builders import Builder
from serving.deploy.onnx_file import read
from serving.deploy.engine_cache import EngineCache, EngineKey, graph_digest
root = Path(sys.argv[2])
source = read(root / "edit/1/model.plan.onnx")
key = EngineKey("edit", graph_digest(source), "11.2.0.5", "sm90", (1, 1, 8))
say = lambda line: print(line, flush=True)
built = EngineCache(root / "plans", say).provide(
    key, source, Builder("11.2.0.5", ("sm90",), root / "bin/trtexec"), root / f"{sys.argv[3]}.plan"
)
print("built" if built else "taken")
"""


def starter(root: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STARTER, str(ROOT), str(root), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_two_starters_build_once(tmp_path: Path, key: EngineKey) -> None:
    builder = stand_in(tmp_path / "bin")
    (tmp_path / "bin" / "seconds").write_text("2")
    both = [starter(tmp_path, name) for name in ("a", "b")]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert sorted(text.splitlines()[-1] for text in said) == ["built", "taken"]
    assert len(runs(builder)) == 1
    assert (tmp_path / "a.plan").read_bytes() == (tmp_path / "b.plan").read_bytes()


def test_a_killed_builder_holds_up_nobody(tmp_path: Path, key: EngineKey) -> None:
    builder = stand_in(tmp_path / "bin")
    (tmp_path / "bin" / "seconds").write_text("60")
    first = starter(tmp_path, "a")
    deadline = time.monotonic() + 60
    while not runs(builder) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=30)
    (tmp_path / "bin" / "seconds").write_text("0")
    assert starter(tmp_path, "b").communicate(timeout=60)[0].splitlines()[-1] == "built"
    assert not (tmp_path / "a.plan").exists()


def test_prune_takes_what_no_start_took(tmp_path: Path, key: EngineKey) -> None:
    source, builder = read(tmp_path / "edit" / "1" / "model.plan.onnx"), stand_in(tmp_path / "bin")
    cache = EngineCache(tmp_path / "plans")
    old = replace(key, tensorrt="10.14.1.48")
    for wanted in (old, key):
        cache.provide(wanted, source, builder, tmp_path / "a.plan")
    long_ago = time.time() - 70 * 86400
    for path in (tmp_path / "plans").glob("*.json"):
        os.utime(path, (long_ago, long_ago))
    assert cache.fetch(key, tmp_path / "a.plan")  # taken today
    assert cache.prune(60) == [old.stem]
    assert cache.fetch(key, tmp_path / "a.plan") and not cache.fetch(old, tmp_path / "b.plan")
    assert not list((tmp_path / "plans").glob(f"{old.stem}*"))


def test_a_cache_that_cannot_be_written_says_who_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=rf"cannot be written: .*; give uid {os.getuid()} a volume there"):
        EngineCache(tmp_path / "file" / "plans")
