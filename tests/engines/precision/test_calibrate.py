from __future__ import annotations

import numpy as np
import pytest

from engines.precision.calibrate import FRACTIONS, _least_error, calibrate
from engines.precision.rewrite import prenormalise
from engines.precision.source import load_source, shapes
from engines.precision.typed import retype
from tests.engines.precision.conftest import feeds_of, run


def test_the_largest_magnitude_of_all_photos(shipped):
    """What FP8 takes is the true maximum of what enters the first convolution: the feature times the first style."""
    entry = shipped.graph("reconstruct")
    feeds = [feeds_of(entry.inputs, 2, seed) for seed in (1, 2)]
    peaks = calibrate(shipped, "reconstruct", feeds, "fp8", threads=1)
    model = load_source(shipped, "reconstruct")
    retype(model, "fp32")
    prenormalise(model, shapes(model))
    for node in model.graph:
        if str(node.name) in peaks:
            value = node.inputs[0]
            assert value is not None
            model.graph.outputs.append(value)
            expected = max(float(np.abs(run(model, one)[str(value.name)]).max()) for one in feeds)
            assert peaks[str(node.name)] == pytest.approx(expected, rel=1e-5)
            break
    else:
        pytest.fail("no product was measured")
    assert len(peaks) == 4


def test_int8_saturates_what_is_rare_and_never_more_than_was_seen(shipped):
    feeds = [feeds_of(shipped.graph("reconstruct").inputs, 2)]
    largest = calibrate(shipped, "reconstruct", feeds, "fp8", threads=1)
    chosen = calibrate(shipped, "reconstruct", feeds, "int8", threads=1)
    assert chosen.keys() == largest.keys()
    for name, peak in chosen.items():
        assert FRACTIONS[0] * largest[name] <= peak * 1.0001 and peak <= largest[name] * 1.0001


def test_one_outlier_does_not_set_the_range():
    values = np.abs(np.random.default_rng(0).normal(size=50_000)).astype(np.float32)
    assert _least_error(values, float(values.max()), 127) > 0.6 * values.max()
    assert _least_error(np.append(values, np.float32(12)), 12.0, 127) < 11
    assert _least_error(np.zeros(4, np.float32), 0.0, 127) == 0.0


def test_a_map_that_is_spread_evenly_keeps_its_range():
    assert _least_error(np.linspace(0, 3, 10_000, dtype=np.float32), 3.0, 127) == pytest.approx(3.0)


def test_without_photos(shipped):
    with pytest.raises(ValueError, match="calibration needs feeds"):
        calibrate(shipped, "reconstruct", [], "int8")
