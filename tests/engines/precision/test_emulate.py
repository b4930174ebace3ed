from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from engines.precision.emulate import Emulated
from engines.precision.ranges import LIMIT, ranges
from engines.precision.typed import retype
from tests.engines.precision.conftest import make_model

FP16 = st.floats(-100, 100, width=16)


def _sum_of_squares(size: int = 64):
    """y = (x * x) @ 1, then a tenth of it: one product, one sum, one more product."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["xx"], name="square"),
        helper.make_node("MatMul", ["xx", "ones"], ["sum"], name="sum"),
        helper.make_node("Mul", ["sum", "tenth"], ["y"], name="scale"),
    ]
    weights = {"ones": np.ones((size, 1), np.float32), "tenth": np.float32(0.1)}
    model = make_model(nodes, {"x": ["batch", size]}, ["y"], weights)
    retype(model, "fp16")
    return model


@given(values=st.lists(FP16, min_size=64, max_size=64))
def test_every_result_is_rounded_and_sums_are_not(values):
    """A matrix product adds in FP32 and rounds once, as tensor cores do."""
    x = np.array([values], np.float32)
    with np.errstate(over="ignore"):
        square = np.square(x.astype(np.float16)).astype(np.float32)
        total = square.sum(dtype=np.float32).astype(np.float16)
        expected = total * np.float16(0.1)
    result = Emulated(_sum_of_squares(), threads=1).run({"x": x})["y"]
    if np.isfinite(expected):
        # The order of an FP32 sum may differ: one step of FP16 at most.
        assert abs(float(result[0, 0]) - float(expected)) <= float(np.spacing(np.abs(expected)))
    else:
        assert np.isinf(result).all()


def test_overflow_is_infinite_and_named():
    emulated = Emulated(_sum_of_squares(), watch=True, threads=1)
    assert np.isinf(emulated.run({"x": np.full((1, 64), 40.0, np.float32)})["y"]).all()
    seen = ranges(emulated.peaks)
    assert seen.overflowed[0] == "sum" and seen.headroom == 0.0
    assert emulated.peaks["xx"] == 1600.0


def test_peaks_are_the_largest_of_all_runs():
    emulated = Emulated(_sum_of_squares(), watch=True, threads=1)
    for value in (2.0, -12.0, 1.0):
        emulated.run({"x": np.full((2, 64), value, np.float32)})
    assert emulated.peaks["xx"] == 144.0 and emulated.peaks["sum"] == 64 * 144.0
    seen = ranges(emulated.peaks)
    assert list(seen.high_peaks) == ["sum"] and seen.headroom == pytest.approx(LIMIT / 9216)
    assert not seen.overflowed


def test_fp32_is_left_alone():
    nodes = [helper.make_node("Mul", ["x", "third"], ["y"], name="scale")]
    model = make_model(nodes, {"x": ["batch", 3]}, ["y"], {"third": np.float32(1 / 3)})
    retype(model, "fp32")
    x = np.array([[1.0, 7.0, 1e6]], np.float32)
    np.testing.assert_array_equal(Emulated(model, threads=1).run({"x": x})["y"], x * np.float32(1 / 3))
