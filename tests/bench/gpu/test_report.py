"""What stands beside a row, what a run says of its rows, and in which order it measures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.gpu import training
from bench.gpu.__main__ import plan
from bench.gpu.carried import join
from bench.gpu.context import Context
from bench.gpu.floors import beside, floor
from bench.gpu.options import GpuBenchOptions
from bench.gpu.report import aim, gap, said
from edgedit.editor import PORTRAIT_BUNDLE
from engines.building.estimate import Work
from engines.errors import BundleError

WORK = Work(graph="edit", macs=10**12, weights=10**9, interface_bytes=0, peak=0)
CARD = {"products": {"fp32": 50.0, "fp16": 500.0, "bf16": 1000.0, "fp8": 2000.0}, "copy_gbs": 1000.0}


def row(graph: str, runtime: str, median: float, least: float | None, precision: str = "fp16") -> dict[str, Any]:
    beside = {"floor_ms": least, "bound": "compute", "times_floor": least and median / least}
    return {"graph": graph, "batch": 1, "runtime": runtime, "precision": precision, "median_ms": median} | beside


def test_floors_are_of_the_rates_that_the_card_showed() -> None:
    assert beside(WORK, CARD, "fp16", {"batch": 2, "median_ms": 16.0}) == {
        "floor_ms": pytest.approx(8.0),
        "bound": "compute",
        "times_floor": pytest.approx(2.0),
    }
    times = {name: found.milliseconds for name in CARD["products"] if (found := floor(WORK, CARD, name))}
    # FP32 takes 4 bytes a weight, BF16 two, of which the bus takes as long as the products; FP8 one.
    assert times == pytest.approx({"fp32": 40.0, "fp16": 4.0, "bf16": 2.0, "fp8": 1.0})
    assert beside(WORK, CARD, "tf32", {"batch": 1, "median_ms": 1.0})["floor_ms"] is None


def test_the_largest_gap_is_that_of_the_fastest_rows() -> None:
    rows = [
        row("invert", "eager", 9.0, 0.5),
        row("invert", "eager+graph", 1.0, 0.5),
        row("edit", "eager+graph", 3.0, 1.2),
        row("edit", "eager", 50.0, 20.0, "fp32"),
    ]
    found = gap(rows)
    assert found is not None and (found["graph"], found["runtime"]) == ("edit", "eager+graph")
    lines = list(said("faces-1024", rows))
    assert "largest gap to the floor: edit, batch 1: eager+graph:fp16 3 ms, 2.50 times its floor of 1.2 ms" in lines[2]
    assert gap([row("edit", "eager", 50.0, None)]) is None


def test_an_aim_is_met_by_all_stages_in_one_runtime() -> None:
    rows = [row("invert", "a", 1.0, None), row("edit", "b", 0.1, None), row("edit", "a", 2.0, None)]
    assert aim("faces-1024", rows).endswith("met, 3 ms (a)")
    assert aim("faces-1024-mobile", rows).endswith("missed, 3 ms (a)")
    assert aim("faces-1024", rows[:2]).endswith("not measured")
    assert aim("faces-1024", [one | {"precision": "fp32"} for one in rows]).endswith("not measured")


def test_the_first_model_comes_before_the_next_and_table_5_last() -> None:
    portrait, full = SimpleNamespace(name="portrait"), SimpleNamespace(name="full")
    models: Any = [portrait, full]
    context = Context(GpuBenchOptions(out=Path(), device="cpu"), models, left=lambda: 1.0)
    taken = [(job, [model.name for model in own.models]) for job, own in plan(context)]
    assert taken[0][0] == "training" and taken[-1][0] == "table5"
    of_portrait = taken.index(("accuracy", ["portrait"]))
    assert taken.index(("latency", ["portrait"])) < of_portrait < taken.index(("latency", ["full"]))
    assert taken.index(("latency", ["full"])) < taken.index(("scaling", ["portrait"]))
    # What is measured once is there for all.
    assert all(own.ceilings is context.ceilings for _, own in plan(context))


def test_a_light_family_trains_on_from_a_bundle_stage_by_stage(tmp_path: Path) -> None:
    def context(**more: Any) -> Context:
        return Context(GpuBenchOptions(out=tmp_path, run=tmp_path, device="cpu", **more), [], left=lambda: 1.0)

    assert training._waits(context(), "e4e") == "needs --from-bundle: faces-1024-mobile trains no generator"
    going_on = context(from_bundle=PORTRAIT_BUNDLE)
    assert training._waits(going_on, "generator") == (
        "faces-1024-mobile trains no generator: it is that of --from-bundle"
    )
    assert training._waits(going_on, "e4e") is None
    assert training._waits(going_on, "encoder") == "the e4e is not finished"
    # Whatever the other stages' steps are, and with the directions of the bundle.
    assert training._steps(context(from_bundle=PORTRAIT_BUNDLE, steps=5), "generator") == 0


def test_a_carried_generator_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "generator.safetensors").write_bytes(b"none")
    with pytest.raises(BundleError, match=r"cannot be read: .*; write it with python -m bench\.gpu\.carried"):
        join(PORTRAIT_BUNDLE, tmp_path / "generator.safetensors", tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
