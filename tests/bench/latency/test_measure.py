"""What a run holds: every runtime of the registry, in turns, with ratios, ceilings, starts and what failed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import engines.runtimes
from bench.latency.candidates import BASE, Candidate, candidates
from bench.latency.inputs import feeds
from bench.latency.measure import LEAST, Budget, measure
from bench.latency.result import parse
from bench.machine import about
from engines.bundle import Bundle
from engines.contracts import TensorSpec
from engines.errors import EdgeditError
from engines.runtimes.onnxruntime import OnnxRuntime
from tests.random_bundle import RANDOM_BUNDLE


class Other(OnnxRuntime):
    """A runtime of another package, in two precisions."""

    @classmethod
    def load(  # type: ignore[override]
        cls, bundle: Bundle, graph: str, *, precision: Literal["fp32", "bf16"] = "fp32", threads: int = 0
    ) -> Any:
        if precision == "bf16" and graph == "reconstruct":
            raise EdgeditError("no bf16 here")
        return OnnxRuntime.load(bundle, graph, threads=threads)


@pytest.fixture
def other() -> Iterator[None]:
    engines.runtimes.register("other", ("numpy",), "numpy", lambda: Other)
    yield
    del engines.runtimes._RUNTIMES["other"]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(RANDOM_BUNDLE)


def names(found: list[Candidate]) -> list[str]:
    return [one.name for one in found]


def test_a_registered_runtime_appears_by_itself_in_its_precisions(bundle: Bundle, other: None) -> None:
    found, missing = candidates(bundle, threads=1)
    assert names(found)[0] == BASE and {"onnxruntime:fp32", "other:fp32", "other:bf16"} <= set(names(found))
    assert all(one.options["threads"] == 1 for one in found)
    # What would take minutes is left out, with a word, until it is named.
    assert "emulates" in missing["torch:fp16"] and "torch:fp16" not in names(found)
    assert names(candidates(bundle, wanted=["torch:fp16"])[0]) == ["torch:fp16"]
    assert names(candidates(bundle, wanted=["other"])[0]) == ["other:fp32", "other:bf16"]


def test_names_that_are_not_here_are_refused(bundle: Bundle) -> None:
    with pytest.raises(EdgeditError, match="there is no runtime 'onnxruntim' here; did you mean onnxruntime"):
        candidates(bundle, wanted=["onnxruntim"])
    with pytest.raises(EdgeditError, match="there is no runtime 'onnxruntime:fp8' here"):
        candidates(bundle, wanted=["onnxruntime:fp8"])


def test_a_run_holds_rows_with_ratios_ceilings_and_what_failed(bundle: Bundle, other: None) -> None:
    chosen, _ = candidates(bundle, threads=1, wanted=[BASE, "onnxruntime", "other:bf16"])
    told: list[str] = []
    budget = Budget(passes=LEAST + 2, seconds=0, starts=0)
    raw = measure(bundle, chosen, ("edit", "reconstruct"), (1, 2), budget=budget, threads=1, progress=told.append)
    result = parse(about("cpu", "a command") | raw, "the run")
    assert {row.key for row in result.rows} == {
        (graph, batch, name)
        for graph in ("edit", "reconstruct")
        for batch in (1, 2)
        for name in (BASE, "onnxruntime:fp32", "other:bf16")
        if (graph, name) != ("reconstruct", "other:bf16")
    }
    assert raw["not_measured"]["other:bf16 reconstruct, batch 1"] == "no bf16 here"
    # Without time left there are as many passes as an interval needs, after a warm-up that is kept too.
    assert all(row["passes"] == LEAST and row["warm_up_ms"] for row in raw["rows"])
    assert all(row.interval_ms and row.speedup_interval and row.speedup for row in result.rows)
    assert all(row.speedup == 1 for row in result.rows if row.name == BASE)
    assert all(row["difference"] < 0.05 for row in raw["rows"])
    assert [(one["graph"], one["batch"]) for one in raw["ceilings"]] == [
        (graph, batch) for graph in ("edit", "reconstruct") for batch in (1, 2)
    ]
    macs = raw["graphs"]["edit"]["macs"]
    row = next(row for row in raw["rows"] if row["batch"] == 2)
    assert row["gflops"] == pytest.approx(2 * 2 * macs / row["median_ms"] / 1e6)
    rate = raw["ceilings"][1]["matmul_tflops"]
    assert row["share_of_product"] == pytest.approx(row["gflops"] / rate / 1e3)
    assert len([line for line in told if "times torch:fp32" in line]) == 6


def test_a_start_has_a_process_of_its_own_and_its_failure_is_said(bundle: Bundle) -> None:
    works = Candidate("onnxruntime", "fp32", {"threads": 1})
    fails = Candidate("onnxruntime", "fp16", {"precision": "fp16"})
    budget = Budget(passes=1, seconds=0, starts=1)
    raw = measure(bundle, [works, fails], ("reconstruct",), (1,), budget=budget, threads=1)
    (start,) = raw["starts"]
    stages = [start[name]["median_ms"] for name in ("start_ms", "load_ms", "first_ms")]
    assert start["picture_ms"]["median_ms"] == pytest.approx(sum(stages)) and start["peak_bytes"] > 2**24
    assert raw["start_graphs"] == ["invert", "edit"]
    assert "there is no onnxruntime fp16 engine" in raw["not_measured"]["onnxruntime:fp16 start"]


def test_nothing_measured_is_an_error(bundle: Bundle) -> None:
    fails = Candidate("onnxruntime", "fp16", {"precision": "fp16"})
    with pytest.raises(EdgeditError, match="nothing could be measured: onnxruntime:fp16 edit, batch 1"):
        measure(bundle, [fails], ("edit",), (1,), budget=Budget(passes=1, seconds=0, starts=0))


def test_inputs_take_what_was_given_for_every_image() -> None:
    given = {"w": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}
    specs = [
        TensorSpec(name="w", dtype="float32", shape=["batch", 2, 3]),
        TensorSpec(name="image", dtype="uint8", shape=["batch", 4, 4, 3]),
    ]
    made = feeds(specs, 3, given)
    assert (made["w"] == given["w"]).all() and made["w"].shape == (3, 2, 3)
    assert made["image"].shape == (3, 4, 4, 3) and made["image"].dtype == np.uint8
    assert (feeds(specs, 3, given)["image"] == made["image"]).all()


def test_an_engine_of_the_bundle_is_a_candidate(tmp_path: Path) -> None:
    from edgedit.building import build

    own = Path(shutil.copytree(RANDOM_BUNDLE, tmp_path / "own"))
    build(own, runtime="onnxruntime", precision="fp16", graphs=["reconstruct"])
    found, _ = candidates(Bundle.load(own), wanted=["onnxruntime"])
    assert names(found) == ["onnxruntime:fp32", "onnxruntime:fp16"]
    assert found[1].graphs == {"reconstruct"} and found[1].options["precision"] == "fp16"
