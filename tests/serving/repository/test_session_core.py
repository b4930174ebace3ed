from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.bundle import Bundle
from engines.directions import load_directions, resolve
from engines.errors import StrengthWarning
from serving.models.edit_session.session_core import MAX_EDITS_BYTES, Cache, EditsError, Units, parse_edits
from serving.repository.session import session_files

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**12), 10**12)


@pytest.fixture(scope="module")
def units(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Units:
    """As the model reads them."""
    folder = tmp_path_factory.mktemp("session")
    for name, content in session_files(tiny, "d" * 64, load_directions(tiny)).items():
        (folder / name).write_bytes(content)
    return Units.load(folder)


@given(edits=st.dictionaries(st.text(max_size=20), NUMBERS, max_size=16))
def test_edits_are_read_as_they_were_written(edits: dict[str, float]) -> None:
    read = parse_edits(json.dumps(edits)[:MAX_EDITS_BYTES])
    assert list(read.items()) == [(name, float(value)) for name, value in edits.items()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ("[" * 4000, "not JSON"),
        ("[]", "must be a JSON object"),
        ("3", "must be a JSON object"),
        ('{"smile": "2"}', "strength of 'smile' must be a number"),
        ('{"smile": true}', "strength of 'smile' must be a number"),
        ('{"smile": null}', "must be a number"),
        ('{"smile": {"age": 1}}', "must be a number"),
        ('{"smile": NaN}', "must be finite numbers, not NaN"),
        ('{"smile": -Infinity}', "must be finite numbers, not -Infinity"),
        ('{"smile": 1e999}', "strength of 'smile' must be finite"),
        ('{"smile": 1' + "0" * 400 + "}", "must be finite"),
        ('{"smile": 1, "smile": 2}', "'smile' is given twice"),
        (json.dumps({f"d{k}": 1 for k in range(17)}), "17 directions; 16 are allowed"),
        ("{" + " " * 5000 + "}", "5002 bytes of JSON; 4096 are allowed"),
    ],
)
def test_a_mistake_in_edits_is_one_line_that_names_it(text: str | bytes, message: str) -> None:
    with pytest.raises(EditsError, match=message) as error:
        parse_edits(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@given(text=st.binary(max_size=60) | st.text(max_size=60))
def test_whatever_a_client_sends_is_edits_or_a_mistake(text: bytes | str) -> None:
    try:
        parse_edits(text)
    except EditsError:
        pass


def test_sixteen_directions_are_allowed() -> None:
    assert len(parse_edits(json.dumps({f"d{k}": k for k in range(16)}))) == 16


@given(
    edits=st.dictionaries(
        st.sampled_from(["smile", "age", "pose", "hair"]), st.floats(-1e3, 1e3) | st.integers(-9, 9), max_size=4
    )
)
@settings(max_examples=200)
def test_the_sum_of_directions_is_that_of_the_engines_to_the_bit(
    units: Units, tiny: Bundle, edits: dict[str, float]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StrengthWarning)
        expected = resolve(load_directions(tiny), edits, tiny.family)
    delta_w, style_delta = units.resolve(edits)
    assert delta_w.dtype == style_delta.dtype == np.float32
    assert delta_w.tobytes() == expected.delta_w.tobytes()
    assert style_delta.tobytes() == expected.style_delta.tobytes()


def test_unknown_directions_are_answered_with_near_names(units: Units) -> None:
    with pytest.raises(EditsError, match=r"unknown direction 'Smlie'; did you mean smile\?"):
        units.resolve({"Smlie": 1})
    with pytest.raises(EditsError, match="there are age, hair, pose, smile"):
        units.resolve({"zzz": 1})
    with pytest.raises(EditsError) as error:
        units.resolve({"\n" + "x" * 4000: 1})
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_strengths_beyond_float32_are_refused(units: Units) -> None:
    with pytest.raises(EditsError, match="of pose is too large"):
        units.resolve({"pose": 1e39})
    one = next(s for s in np.geomspace(1e36, 3.4e38, 60)[::-1] if _fits(units, float(s)))
    # What one direction bears, two that point the same way may not.
    twice = Units(["a", "b"], *(np.stack([u[2], u[2]]) for u in (units._delta_w, units._style_delta)))
    with pytest.raises(EditsError, match="together are too large"):
        twice.resolve({"a": float(one), "b": float(one)})


def _fits(units: Units, strength: float) -> bool:
    try:
        units.resolve({"pose": strength})
    except EditsError:
        return False
    return True


@given(
    limit=st.integers(0, 40),
    steps=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.none() | st.integers(0, 15)), max_size=60),
)
def test_the_cache_keeps_what_was_used_last_within_its_bytes(limit: int, steps: list[tuple[str, int | None]]) -> None:
    cache, order = Cache(limit), dict[str, int]()  # `order`: sizes, last used at the end
    for key, size in steps:
        if size is None:
            assert (cache.get(key) is not None) == (key in order)
            if key in order:
                order[key] = order.pop(key)
            continue
        cache.put(key, (key, size), size)
        order.pop(key, None)
        if size <= limit:
            order[key] = size
        while sum(order.values()) > limit:
            del order[next(iter(order))]
        assert cache.bytes == sum(order.values()) <= limit
        assert len(cache) == len(order) and all(held in cache for held in order)
