from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.ranges import RangeBenchOptions, extremes, measure, read_codes
from engines.bundle import Bundle
from engines.errors import EngineError
from tests.random_bundle import RANDOM_BUNDLE


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.load(RANDOM_BUNDLE, verify=False)


@pytest.fixture(scope="module")
def codes(demo: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("codes") / "codes.npy"
    shape = (4, demo.family.w_rows, demo.family.style_dim)
    np.save(file, np.random.default_rng(0).normal(size=shape).astype(np.float32))
    return file


def test_codes_a_thousand_times_as_large_hardly_change_the_activations(demo: Bundle, codes: Path) -> None:
    """What pre-normalisation is for: styles are divided by their largest."""
    options = RangeBenchOptions(
        bundle=(), codes=codes, scale=(1.0, 1000.0), graph=("reconstruct", "features"), threads=1, out=codes
    )
    rows = {(row["graph"], row["input"]): row for row in measure("demo", demo, options)}
    assert list(rows) == [(g, f"codes x {s}") for g in ("reconstruct", "features") for s in (1, 1000)]
    for graph in ("reconstruct", "features"):
        small, large = (rows[graph, f"codes x {scale}"] for scale in (1, 1000))
        assert 0.5 < large["largest"] / small["largest"] < 3 and not large["overflowed"] and not large["near_limit"]
        assert large["headroom"] == pytest.approx(65504 / large["largest"])
        # The bound is that of products alone; what it is of is named.
        assert large["least_margin"]["times"] > 100 and large["least_margin"]["product"]
    assert json.dumps(list(rows.values()), allow_nan=False)


def test_photos_go_into_the_inversion(demo: Bundle, codes: Path) -> None:
    options = RangeBenchOptions(bundle=(), codes=codes, scale=(1.0,), graph=("encoder",), threads=1, out=codes)
    rows = list(measure("demo", demo, options))
    assert [row["input"] for row in rows] == ["photo", "noise"] and all(row["largest"] > 1 for row in rows)


def test_the_extremes_of_codes() -> None:
    codes = np.zeros((3, 2, 4), np.float32)
    codes[1, 0, 0], codes[2, 1, 3] = 5, -4
    first, change = extremes(codes)
    assert np.array_equal(first[0], codes[1]) and np.array_equal(change[0], codes[2] - codes[1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4), np.float32), "must hold codes of shape any x "),
        (np.zeros((0, 10, 32), np.float32), "holds no codes"),
        (np.full((1, 10, 32), np.nan, np.float32), "such as are not finite"),
        (np.array([{}], object), "is not an array of codes"),
        (b"PK nothing", "is not an array of codes"),
    ],
)
def test_files_without_codes(demo: Bundle, tmp_path: Path, array: np.ndarray | bytes, message: str) -> None:
    file = tmp_path / "codes.npy"
    if isinstance(array, bytes):
        file.write_bytes(array)
    else:
        np.save(file, array, allow_pickle=True)
    with pytest.raises(EngineError, match=message):
        read_codes(file, demo.family)
