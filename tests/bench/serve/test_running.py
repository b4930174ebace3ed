"""One small real run. It says nothing of time: only that all is asked, answered alike and written down."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.serve.options import ServeBenchOptions
from bench.serve.running import run
from bench.serve.targets import batches_of, layout
from edgedit.commands.bench_serve import BenchServe
from engines.errors import EdgeditError, OutputError
from serving.client.regions import PREFIX


def _ours(region: str) -> bool:
    """Whether a region of shared memory is not a client's that runs in a program beside this one."""
    if not region.startswith(PREFIX):
        return region.startswith("psm_")
    owner = region.removeprefix(PREFIX).partition("_")[0]
    return owner == str(os.getpid()) or not Path("/proc", owner).exists()


@pytest.mark.triton
@pytest.mark.usefixtures("development_server")
def test_a_run_from_servers_to_files(pipelines: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "serve.json", tmp_path / "serve.svg"
    drawn = importlib.util.find_spec("matplotlib") is not None
    before = set(Path("/dev/shm").iterdir())
    given = run(
        ServeBenchOptions(
            bundle=pipelines,
            out=out,
            plot=plot if drawn else None,
            concurrency=(1, 8),
            rounds=1,
            seconds=0.05,
            samples=5,
        )
    )
    result = json.loads(out.read_text())
    assert result == given
    # The servers compute what the process does, through every transport.
    assert result["largest_difference"] == 0
    keys = [(one["model"], one["way"], one["batching"], one["concurrency"]) for one in result["rows"]]
    servers = [(m, w, b) for m in ("edit", "edit_session") for w in ("grpc", "http", "shm") for b in ("on", "off")]
    wanted = [*servers, ("edit", "in-process", "on"), ("edit", "in-process", "off")]
    assert sorted(keys) == sorted((*key, c) for key in wanted for c in (1, 8))
    for one in result["rows"]:
        assert one["calls"] >= 1 and 1 <= len(one["samples_ms"]) <= 5 and one["images_per_second"] > 0
        assert one["p50_ms"] <= one["p95_ms"] <= one["p99_ms"]
        if one["way"] != "in-process":
            assert set(one["over_single"]) == {"p50_ms", "p50_percent", "throughput_percent"}
            # Without batching the model sees one request at a time.
            assert one["server"]["batch"] == 1 if one["batching"] == "off" else one["server"]["batch"] >= 1
            assert one["server"]["infer_ms"] > 0
    full = [one for one in result["rows"] if "server" in one and (one["batching"], one["concurrency"]) == ("on", 8)]
    assert max(one["server"]["batch"] for one in full) > 1
    assert len(result["aims"]) == 2 and all(isinstance(aim["met"], bool) for aim in result["aims"])
    assert {"command", "date", "device", "versions", "load_average"} <= set(result)
    assert str(tmp_path) not in out.read_text()
    # Plots need the extra `bench`.
    assert not drawn or b"<svg" in plot.read_bytes()[:500]
    assert not [p for p in set(Path("/dev/shm").iterdir()) - before if _ours(p.name)]


def test_the_verb_refuses_one_file_for_two_outputs(tmp_path: Path) -> None:
    both = tmp_path / "x.json"
    with pytest.raises(OutputError, match="both name"):
        BenchServe(out=both, json=both, no_setup=True).run()


def test_the_verb_has_the_defaults_of_the_measurement(tmp_path: Path) -> None:
    verb, options = BenchServe(out=tmp_path / "x.json"), ServeBenchOptions(out=tmp_path / "x.json")
    for name in ("bundle", "concurrency", "rounds", "seconds", "threads", "plot", "perf_analyzer"):
        mine, theirs = getattr(verb, name), getattr(options, name)
        assert mine == theirs or Path(mine).samefile(theirs), name


@pytest.mark.parametrize(("callers", "batches"), [(1, [1]), (5, [5]), (8, [8]), (9, [8, 1]), (16, [8, 8])])
def test_callers_are_answered_in_full_batches(callers: int, batches: list[int]) -> None:
    assert batches_of(callers) == batches


def test_tensors_do_not_overlap_in_a_region() -> None:
    feeds = {"a": np.zeros(3, np.uint8), "b": np.zeros(64, np.uint8), "c": np.zeros(65, np.uint8)}
    assert layout(feeds) == ({"a": 0, "b": 64, "c": 128}, 256)


def test_an_image_that_differs_from_the_one_in_process_is_no_measurement() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from bench.serve.running import _check_images

    def target(value: int) -> Any:
        return SimpleNamespace(calls=lambda n: [lambda: np.full((1, 2, 2, 3), value, np.uint8)] * n)

    own = ("edit", "in-process", "off")
    with ThreadPoolExecutor(1) as threads:
        assert _check_images({own: target(9), ("edit", "grpc", "on"): target(10)}, threads) == 1
        with pytest.raises(EdgeditError, match="edit http on gave another image"):
            _check_images({own: target(9), ("edit", "http", "on"): target(12)}, threads)
