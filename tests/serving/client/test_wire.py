from __future__ import annotations

import json

import numpy as np
import pytest

from engines.errors import StrengthWarning
from serving.client.errors import RequestError, ServingError
from serving.client.wire import DirectionInfo, Profile, Request, edits_json, parse_profile, read_answer, within_ranges

PROFILE = Profile((6, 4), {"smile": DirectionInfo("smile", -3.0, 3.0, "a smile")}, "ab" * 32)
CONFIG = {
    "input": [{"name": "handle", "dims": [1]}, {"name": "image", "dims": ["6", "4", "3"]}],
    "parameters": {
        "bundle_sha256": {"string_value": "ab" * 32},
        "directions": {"string_value": '{"smile": {"min_strength": -3, "max_strength": 3, "description": "a smile"}}'},
    },
}


def test_strengths_reach_the_server_to_the_last_bit_and_in_order() -> None:
    edits = {"smile": 0.1 + 0.2, "age": np.float32(1 / 3), "hair": np.int64(2), "pose": 1}
    sent = json.loads(edits_json(edits))
    assert list(sent) == list(edits)
    assert sent["smile"] == 0.1 + 0.2 and np.float32(sent["age"]) == np.float32(1 / 3)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"smile": float("nan")}, "finite"),
        ({"smile": 10**400}, "strength of smile must be finite"),
        ({"smile": "2"}, "strength of smile must be a number, got '2'"),
        ({"smile": True}, "strength of smile must be a number"),
        ({"smile": np.True_}, "strength of smile must be a number"),
        ({1: 2.0}, "directions are named by text"),
        ({f"d{k}": 1.0 for k in range(17)}, "edits name 17 directions; 16 are allowed"),
        ({"x" * 5000: 1.0}, "4096 are allowed"),
    ],
)
def test_what_no_server_would_take_is_refused_before_it_is_sent(edits: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        edits_json(edits)


def test_strengths_outside_the_range_warn_and_are_limited_if_asked() -> None:
    with pytest.warns(StrengthWarning, match=r"strength 5 of smile is outside -3\.\.3; expect artefacts"):
        assert within_ranges(PROFILE, {"smile": 5, "other": 99}, clamp=False) == {"smile": 5, "other": 99}
    with pytest.warns(StrengthWarning, match="using -3"):
        assert within_ranges(PROFILE, {"smile": -4}, clamp=True) == {"smile": -3.0}


def test_the_profile_is_read_from_either_protocols_configuration() -> None:
    assert parse_profile(CONFIG) == PROFILE
    # An older repository's, which lets any server be asked.
    older = {name: value for name, value in CONFIG["parameters"].items() if name == "directions"}
    assert parse_profile({**CONFIG, "parameters": older}).bundle_sha256 == ""
    with pytest.raises(ServingError, match="is not one that `edgedit serve repo` wrote"):
        parse_profile({**CONFIG, "parameters": {}})
    with pytest.raises(ServingError, match="is not one that `edgedit serve repo` wrote"):
        parse_profile({**CONFIG, "input": [{"name": "image", "dims": [6, 4, 1]}]})


class _Result:
    def __init__(self, image: np.ndarray | None) -> None:
        self._image = image

    def as_numpy(self, name: str) -> np.ndarray | None:
        return self._image if name == "image" else None


@pytest.mark.parametrize("image", [None, np.zeros((1, 4, 6, 3), np.uint8), np.zeros((1, 6, 4, 3), np.float32)])
def test_an_answer_of_another_model_is_not_taken_for_an_image(image: np.ndarray | None) -> None:
    with pytest.raises(ServingError, match="instead of an image"):
        read_answer(_Result(image), Request((6, 4), handle="1", edits="{}"), None)


def test_an_answer_is_the_callers_to_change() -> None:
    image = np.frombuffer(bytes(72), np.uint8).reshape(1, 6, 4, 3)
    answer = read_answer(_Result(image), Request((6, 4), handle="1", edits="{}"), None)
    answer.image[0] = 7
    assert answer.image.shape == (6, 4, 3)
