from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engines.bundle import Bundle
from engines.contracts import graph_contract
from engines.errors import BundleError
from serving.contract import GRAPH_MODELS, HANDLE_DIGITS, handle_of
from tests.engines.conftest import TINY, write_tiny

_ROOT = Path(__file__).resolve().parents[2]
CROPS = arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)))


@given(crop=CROPS, data=st.data())
def test_a_handle_is_of_every_pixel_the_shape_and_the_bundle(crop: np.ndarray, data: st.DataObject) -> None:
    handle = handle_of(crop, "a" * 64)
    assert len(handle) == HANDLE_DIGITS == 32 and set(handle) <= set("0123456789abcdef")
    assert handle == handle_of(np.asfortranarray(crop), "a" * 64) == handle_of(crop.copy(), "a" * 64)
    changed = crop.copy()
    changed.reshape(-1)[data.draw(st.integers(0, crop.size - 1))] ^= data.draw(st.integers(1, 255))
    assert handle_of(changed, "a" * 64) != handle
    assert handle_of(crop, "b" * 64) != handle
    height, width, _ = crop.shape
    if height != width:
        assert handle_of(crop.reshape(width, height, 3), "a" * 64) != handle


def test_handles_stay_what_they_are_for_clients_that_computed_them_before() -> None:
    crop = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    expected = hashlib.sha256(b"d" * 64 + b"\n2x3\n" + bytes(range(18))).hexdigest()[:32]
    assert handle_of(crop, "d" * 64) == expected


@pytest.mark.parametrize(
    "crop",
    [np.zeros((4, 4, 3), np.float32), np.zeros((1, 4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), [[1, 2, 3]]],
)
def test_what_is_no_image_has_no_handle(crop: object) -> None:
    with pytest.raises(ValueError, match="uint8 h x w x 3"):
        handle_of(crop, "a" * 64)  # type: ignore[arg-type]


def test_a_bundle_is_told_by_all_that_it_holds(tmp_path: Path) -> None:
    one, two = Bundle.load(write_tiny(tmp_path / "one")), Bundle.load(write_tiny(tmp_path / "two", seed=8))
    assert one.digest() == hashlib.sha256((tmp_path / "one" / "manifest.json").read_bytes()).hexdigest()
    assert one.digest() != two.digest()
    shutil.rmtree(tmp_path / "one")
    with pytest.raises(BundleError, match="copy the bundle again"):
        one.digest()


def test_every_model_of_a_graph_has_tensors_that_triton_has_types_for() -> None:
    utils = pytest.importorskip("tritonclient.utils", reason="tritonclient is not installed")
    for name in GRAPH_MODELS:
        for specs in graph_contract(TINY, name):
            assert all(utils.np_to_triton_dtype(np.dtype(spec.dtype)) for spec in specs)


def test_the_contract_needs_no_client_library() -> None:
    code = "import sys, serving.contract; print([m for m in sys.modules if m.startswith(('tritonclient', 'google'))])"
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
