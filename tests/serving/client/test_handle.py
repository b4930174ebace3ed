from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from serving.client import Handle


def test_a_handle_cannot_be_changed_and_does_not_freeze_the_array_it_was_given() -> None:
    crop = np.zeros((4, 4, 3), np.uint8)
    handle = Handle("ab" * 16, crop)
    with pytest.raises(FrozenInstanceError):
        handle.id = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        handle.crop[0] = 1
    crop[0] = 1
    assert handle.alignment is None


def test_a_handle_shows_its_id_and_no_pixels_and_is_not_pickled() -> None:
    handle = Handle("ab" * 16, np.zeros((64, 64, 3), np.uint8))
    assert repr(handle) == f"Handle('{'ab' * 16}')"
    for fail in (lambda: pickle.dumps(handle), lambda: copy.deepcopy(handle)):
        with pytest.raises(TypeError, match="a handle holds a photo and is not pickled"):
            fail()


def test_handles_of_one_inversion_are_equal() -> None:
    a, b = Handle("1" * 32), Handle("1" * 32, np.zeros((4, 4, 3), np.uint8))
    assert a == b and len({a, b}) == 1
    assert a != Handle("2" * 32)
    assert a != "1" * 32
