from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engines.bundle import Bundle, BundleWriter, ProducedBy
from engines.contracts import style_width
from engines.directions import Direction, load_directions, parse_edits, resolve
from engines.directions.direction import row_range
from engines.errors import DirectionError, OutputError, StrengthWarning
from engines.family import ModelFamily

FINITE = st.floats(-1e4, 1e4, allow_nan=False, width=32)


def make(**change: object) -> Direction:
    fields: dict = {
        "name": "smile", "kind": "interfacegan", "space": "w", "vector": np.arange(8, dtype=np.float32),
        "min_strength": -3.0, "max_strength": 3.0, "description": "d", "source": "s", "licence": "MIT",
    }  # fmt: skip
    return Direction(**(fields | change))


@pytest.fixture(scope="session")
def directions(tiny_bundle: Bundle) -> dict[str, Direction]:
    return load_directions(tiny_bundle)


@given(
    vector=arrays(
        np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
    ).filter(np.any),
    low=st.floats(-10, 0),
    span=st.floats(0.1, 10),
    text=st.text(max_size=50),
    rows=st.none() | st.tuples(st.integers(0, 8), st.integers(9, 18)),
)
@settings(max_examples=60, deadline=None)
def test_a_direction_survives_its_file(vector, low, span, text, rows) -> None:
    direction = make(vector=vector, min_strength=low, max_strength=low + span, description=text, rows=rows)
    back = Direction.from_bytes(direction.to_bytes())
    assert np.array_equal(back.vector, vector)
    assert back.vector.dtype == np.float32 and not back.vector.flags.writeable
    for name in ("name", "kind", "space", "min_strength", "max_strength", "description", "source", "licence", "rows"):
        assert getattr(back, name) == getattr(direction, name)


def test_files_are_saved_whole_and_read_back(tmp_path: Path) -> None:
    make().save(tmp_path / "smile.safetensors")
    assert Direction.load(tmp_path / "smile.safetensors").name == "smile"
    assert [p.name for p in tmp_path.iterdir()] == ["smile.safetensors"]
    with pytest.raises(OutputError, match="cannot write"):
        make().save(tmp_path / "no" / "smile.safetensors")
    with pytest.raises(DirectionError, match="cannot read"):
        Direction.load(tmp_path / "nowhere")


@given(st.binary(max_size=200))
@settings(max_examples=60)
def test_no_bytes_raise_anything_but_a_direction_error(data: bytes) -> None:
    with pytest.raises(DirectionError, match="is not an edit direction"):
        Direction.from_bytes(data)


def test_what_came_in_place_of_a_direction_is_named() -> None:
    for data, message in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3000\n", "it is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"", "it is empty"),
    ):
        with pytest.raises(DirectionError, match=f"smile.safetensors is not an edit direction: {message}"):
            Direction.from_bytes(data, "smile.safetensors")
    with pytest.raises(DirectionError, match=r"smile\.pt is not an edit direction: .*`edgedit import direction` makes"):
        Direction.from_bytes(b"PK\x03\x04 and more", "smile.pt")


@given(offset=st.integers(0, 10_000), mask=st.integers(1, 255))
@settings(max_examples=200)
def test_damaged_files_never_raise_anything_else(offset: int, mask: int) -> None:
    data = bytearray(make().to_bytes())
    data[offset % len(data)] ^= mask
    try:
        Direction.from_bytes(bytes(data))
    except DirectionError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../x"}, "direction name"),
        ({"name": "a:b"}, "direction name"),
        ({"kind": "magic"}, "kind must be one of interfacegan, ganspace"),
        ({"space": "z"}, "space must be one of w, w\\+, s"),
        ({"vector": np.zeros((2, 8))}, "has 1 dimensions"),
        ({"vector": np.zeros(0)}, "finite values"),
        ({"vector": [1.0, float("nan")]}, "finite values"),
        ({"vector": "abc"}, "not an array of numbers"),
        ({"vector": np.zeros(8)}, "the vector is zero, so that no strength of it edits anything"),
        # Nothing is left of it in FP32.
        ({"vector": np.full(8, 1e-60)}, "the vector is zero"),
        ({"space": "w+"}, "has 2 dimensions"),
        ({"space": "s", "rows": (0, 2)}, "rows must be"),
        ({"rows": (2, 2)}, "rows must be"),
        ({"rows": (-1, 2)}, "rows must be"),
        ({"rows": (0.0, 2)}, "rows must be"),
        ({"min_strength": 3.0}, "is not below"),
        ({"max_strength": float("inf")}, "must be finite"),
        ({"max_strength": "3"}, "must be a number"),
        ({"licence": None}, "licence must be text"),
    ],
)
def test_fields_that_do_not_fit_together(change: dict, message: str) -> None:
    with pytest.raises(DirectionError, match=message):
        make(**change)


def test_delta_scales_the_vector() -> None:
    assert np.array_equal(make().delta(-1.5), np.arange(8, dtype=np.float32) * -1.5)
    for bad in (float("nan"), float("inf"), -float("inf"), 10**400, "2", None, True):
        with pytest.raises(DirectionError):
            make().delta(bad)
    with pytest.raises(DirectionError, match="too large"):
        make().delta(1e39)


def test_each_space_goes_to_its_place(directions: dict[str, Direction], tiny_family: ModelFamily) -> None:
    def edit(name: str):
        return resolve(directions, {name: 2.0}, tiny_family)

    vectors = {name: direction.vector for name, direction in directions.items()}
    shape = (tiny_family.w_rows, tiny_family.style_dim)
    assert np.array_equal(edit("smile").delta_w, np.broadcast_to(2 * vectors["smile"], shape))
    age = edit("age").delta_w
    assert np.array_equal(age[1:3], np.broadcast_to(2 * vectors["age"], (2, shape[1])))
    assert not age[0].any() and not age[3:].any()
    assert np.array_equal(edit("pose").delta_w, 2 * vectors["pose"])
    hair = edit("hair")
    assert not hair.delta_w.any() and np.array_equal(hair.style_delta, 2 * vectors["hair"])
    assert hair.style_delta.shape == (style_width(tiny_family),)
    nothing = resolve(directions, {}, tiny_family)
    assert nothing.delta_w.shape == shape and nothing.delta_w.dtype == np.float32 and not nothing.delta_w.any()


@given(a=st.floats(-1.5, 1.5), b=st.floats(-1.5, 1.5))
@settings(max_examples=40, deadline=None)
def test_composition_adds_and_is_linear(directions, tiny_family: ModelFamily, a: float, b: float) -> None:
    both = resolve(directions, {"smile": a, "pose": b, "hair": a}, tiny_family)
    parts = [resolve(directions, edit, tiny_family) for edit in ({"smile": a}, {"pose": b}, {"hair": a})]
    np.testing.assert_allclose(both.delta_w, sum(p.delta_w for p in parts), atol=1e-5)
    np.testing.assert_allclose(both.style_delta, sum(p.style_delta for p in parts), atol=1e-5)
    doubled = resolve(directions, {"smile": 2 * a, "pose": 2 * b}, tiny_family)
    np.testing.assert_allclose(doubled.delta_w, 2 * both.delta_w, atol=1e-5)


def test_an_unknown_name_gets_close_ones(directions: dict[str, Direction], tiny_family: ModelFamily) -> None:
    with pytest.raises(DirectionError) as caught:
        resolve(directions, {"Smlie": 1}, tiny_family)
    text = "unknown direction 'Smlie'; did you mean smile? there are age, hair, pose, smile (`edgedit info"
    assert str(caught.value).startswith(text)
    with pytest.raises(DirectionError) as caught:
        resolve(directions, {"zzz": 1}, tiny_family)
    assert "did you mean" not in str(caught.value) and "age, hair" in str(caught.value)
    with pytest.raises(DirectionError, match="there are none"):
        resolve({}, {"smile": 1}, tiny_family)


def test_strength_outside_the_range_warns_and_clamps_only_if_asked(directions, tiny_family: ModelFamily) -> None:
    vector = directions["pose"].vector
    with pytest.warns(StrengthWarning, match=r"strength 5 of pose is outside -3\.\.3; expect artefacts"):
        assert np.array_equal(resolve(directions, {"pose": 5}, tiny_family).delta_w, 5 * vector)
    with pytest.warns(StrengthWarning, match="using -3"):
        assert np.array_equal(resolve(directions, {"pose": -5}, tiny_family, clamp=True).delta_w, -3 * vector)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for edge in (-3, 3, np.float32(1.5)):
            resolve(directions, {"pose": edge}, tiny_family)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), "2", None, True])
def test_strengths_that_are_not_finite_numbers(directions, tiny_family: ModelFamily, bad: object) -> None:
    for clamp in (False, True):
        with pytest.raises(DirectionError, match="strength of smile"):
            resolve(directions, {"smile": bad}, tiny_family, clamp=clamp)


@pytest.mark.parametrize(
    "change",
    [
        {"vector": np.ones(9)},
        {"rows": (3, 7)},
        {"space": "w+", "vector": np.ones((5, 8))},
        {"space": "w+", "vector": np.ones((1, 8))},
        {"space": "s", "vector": np.ones(5)},
    ],
)
def test_directions_of_another_family(tiny_family: ModelFamily, change: dict) -> None:
    with pytest.raises(DirectionError, match="does not fit family tiny"):
        resolve({"smile": make(**change)}, {"smile": 1}, tiny_family)


def test_a_file_must_hold_the_direction_of_its_name(tmp_path: Path, tiny_family: ModelFamily) -> None:
    produced_by = ProducedBy(tools={}, command="pytest", date="2026-01-01")
    with BundleWriter(
        tmp_path / "b", name="b", family=tiny_family, precision="fp16", licence="MIT", produced_by=produced_by
    ) as writer:
        writer.add_bytes("directions/age.safetensors", make().to_bytes())
        writer._directions.append("age")
    with pytest.raises(DirectionError, match=r"age\.safetensors holds the direction 'smile'"):
        load_directions(Bundle.load(tmp_path / "b"))


def test_parse_edits() -> None:
    assert parse_edits(["smile:2", "age:-1", " hair : 0.5 "]) == {"smile": 2.0, "age": -1.0, "hair": 0.5}
    assert parse_edits([]) == {}
    for bad in ("smile", "smile:", ":2", "smile:two", "smile:nan", "smile:inf", "smile:1e999", "", ":"):
        with pytest.raises(DirectionError, match="is not NAME:STRENGTH"):
            parse_edits([bad])
    with pytest.raises(DirectionError, match="'smile' is given twice"):
        parse_edits(["smile:1", "smile:2"])


@given(st.dictionaries(st.from_regex(r"\A[a-z][a-z0-9._-]{0,10}\Z"), FINITE))
def test_edits_survive_being_text(edits: dict[str, float]) -> None:
    assert parse_edits([f"{name}:{strength!r}" for name, strength in edits.items()]) == edits


@pytest.mark.parametrize("rows", [(np.int64(4), np.int32(8)), np.array([4, 8]), [4, 8]])
def test_rows_may_be_numbers_of_numpy(rows: object) -> None:
    found = row_range("a strength", rows)  # type: ignore[arg-type]
    assert found == (4, 8) and [type(row) for row in found] == [int, int]


@pytest.mark.parametrize(
    "rows", [(np.float64(4), 8), (True, 8), np.array([4.0, 8.0]), np.array([4, 6, 8]), (np.int64(8), 4)]
)
def test_other_numbers_are_no_rows(rows: object) -> None:
    with pytest.raises(DirectionError, match="rows must be"):
        row_range("a strength", rows)  # type: ignore[arg-type]
