"""The soak: what it calls growth, a real short run, and the ten minutes themselves."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.serve.soak import LIMITS, Answers, Sample, SoakOptions, grown, growth, run
from engines.errors import EdgeditError
from tests.random_bundle import RANDOM_BUNDLE

QUIET = Sample(0.0, 600 << 20, 30 << 20, 400, 300, 200 << 20)


def series(seconds: int, leak: float) -> list[Sample]:
    """One sample a second: a start-up that grows, noise of 4 MiB, and so many bytes a second on top."""
    rng = np.random.default_rng(1)
    return [
        replace(
            QUIET,
            seconds=float(k),
            server_bytes=int(QUIET.server_bytes + min(k, seconds / 10) * 2**20 + leak * k + rng.normal(0, 4 << 20)),
        )
        for k in range(seconds)
    ]


def test_a_start_up_and_noise_are_no_growth() -> None:
    by = growth(series(600, 0.0))
    assert abs(by["server_bytes"]) < 2 << 20
    assert {name: value for name, value in by.items() if name != "server_bytes"} == dict.fromkeys(
        LIMITS.keys() - {"server_bytes"}, 0
    )
    assert grown(by) == []


def test_a_leak_of_a_hundred_kilobytes_a_second_is() -> None:
    by = growth(series(600, 100e3))
    # From the middle of the first third to that of the last, of three quarters of the run: half of it.
    assert by["server_bytes"] == pytest.approx(100e3 * 300, rel=0.1)
    (line,) = grown(by)
    assert line.startswith("server_bytes grew by 3") and line.endswith(f"more than {16 << 20}")


def test_a_run_without_samples_tells_nothing() -> None:
    with pytest.raises(EdgeditError, match="too short a run"):
        growth([QUIET, QUIET])


def test_an_answer_that_changes_is_an_error() -> None:
    answers, image = Answers("smile"), np.zeros((4, 4, 3), np.uint8)
    answers.check((3, 0.5), image)
    rounded = np.zeros((64, 64, 3), np.uint8)
    answers.check((2, 0.5), rounded)
    rounded[5, 6, 0] = 1
    answers.check((2, 0.5), rounded)
    answers.check((3, 0.5), image.copy())
    answers.check((3, 1.0), image + 1)
    with pytest.raises(EdgeditError, match=r"photo 3 at strength 0\.5 was answered differently"):
        answers.check((3, 0.5), image + 1)


@pytest.mark.parametrize("given", [{"seconds": 0.1}, {"callers": 0}, {"every": 100.0}, {"out": Path("/no/such/x")}])
def test_what_cannot_be_is_refused_before_any_work(given: dict) -> None:
    with pytest.raises(EdgeditError):
        run(SoakOptions(**given))


@pytest.mark.triton
@pytest.mark.usefixtures("development_server")
def test_a_short_run_from_server_to_file(pipelines: Path, tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    result = run(SoakOptions(bundle=pipelines, out=out, seconds=2, every=0.25, callers=3))
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    # How much it asked is a matter of the machine.
    assert result["images"] >= 1 and result["calls"]["invert"] >= 1 and result["growth"].keys() == LIMITS.keys()
    # It says nothing of growth yet, but has looked at what there is.
    for sample in result["samples"]:
        assert sample["server_bytes"] > 50 << 20 and sample["shared_bytes"] > 1 << 20
        assert sample["descriptors"] > 20 and sample["threads"] > 20 and sample["client_bytes"] > 10 << 20
    assert str(tmp_path) not in out.read_text()


@pytest.mark.slow
@pytest.mark.triton
@pytest.mark.timeout(4000)
@pytest.mark.usefixtures("development_server")
def test_ten_minutes_of_load_leave_memory_flat() -> None:
    """EDGEDIT_SOAK_SECONDS makes it shorter or longer."""
    result = run(SoakOptions(bundle=RANDOM_BUNDLE, seconds=float(os.environ.get("EDGEDIT_SOAK_SECONDS", "600"))), print)
    assert result["grown"] == [], result["growth"]
    assert result["images"] > result["seconds"]
