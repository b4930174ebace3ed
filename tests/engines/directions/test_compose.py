from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.contracts import style_width
from engines.directions import Direction, Strength, resolve
from engines.errors import DirectionError, StrengthWarning
from engines.family import CARS_512, FACES_1024, FACES_1024_MOBILE, ModelFamily


def directions(family: ModelFamily) -> dict[str, Direction]:
    rng = np.random.default_rng(5)
    shapes = {"w": family.style_dim, "band": family.style_dim, "s": style_width(family)}
    shapes |= {"wplus": (family.w_rows, family.style_dim)}
    spaces = {"band": "w", "wplus": "w+"}
    return {
        name: Direction(
            name=name,
            kind="interfacegan",
            space=spaces.get(name, name),  # type: ignore[arg-type]
            vector=rng.normal(size=shape),
            min_strength=-3,
            max_strength=3,
            description="d",
            source="random",
            licence="CC0-1.0",
            rows=(1, 4) if name == "band" else None,
        )
        for name, shape in shapes.items()
    }


@given(first=st.integers(0, 5), length=st.integers(1, 6), value=st.floats(-3, 3))
def test_a_mask_touches_its_rows_only_and_the_rest_makes_up_the_whole(
    tiny_family: ModelFamily, first: int, length: int, value: float
) -> None:
    known, rows = directions(tiny_family), tiny_family.w_rows
    end = min(first + length, rows)
    spans = [span for span in ((0, first), (first, end), (end, rows)) if span[0] < span[1]]
    for name in known:
        whole = resolve(known, {name: value}, tiny_family)
        parts = [resolve(known, {name: Strength(value, rows=span)}, tiny_family) for span in spans]
        for (start, stop), part in zip(spans, parts, strict=True):
            outside = np.ones(rows, bool)
            outside[start:stop] = False
            assert not part.delta_w[outside].any()
            layers = np.split(part.style_delta, np.cumsum(tiny_family.style_channels)[:-1])
            assert not any(d.any() for d, row in zip(layers, tiny_family.style_rows, strict=True) if outside[row])
        assert np.array_equal(sum(p.delta_w for p in parts), whole.delta_w)
        assert np.array_equal(sum(p.style_delta for p in parts), whole.style_delta)


def test_a_ramp_is_linear_over_its_rows(tiny_family: ModelFamily) -> None:
    known = directions(tiny_family)
    vector = known["w"].vector
    edit = resolve(known, {"w": Strength(2.0, rows=(1, 4), ramp=(1, 0))}, tiny_family)
    shares = np.array([0, 1, 0.5, 0, 0, 0])[: tiny_family.w_rows, None]
    np.testing.assert_allclose(edit.delta_w, 2 * shares * vector, rtol=1e-6)
    # A direction that has rows of its own keeps them: the ramp is cut to them.
    band = resolve(known, {"band": Strength(2.0, ramp=(0, 1))}, tiny_family).delta_w
    rows = np.linspace(0, 1, tiny_family.w_rows)[:, None] * 2 * known["band"].vector
    np.testing.assert_allclose(band[1:4], rows[1:4], rtol=1e-6)
    assert not band[0].any() and not band[4:].any()
    one_row = resolve(known, {"w": Strength(2.0, rows=(2, 3), ramp=(0.25, 1))}, tiny_family).delta_w
    np.testing.assert_allclose(one_row[2], 0.5 * vector, rtol=1e-6)


def test_a_strength_without_mask_is_the_number_to_the_bit(tiny_family: ModelFamily) -> None:
    known = directions(tiny_family)
    plain = resolve(known, {"w": 1.7, "s": -0.3, "wplus": 2.9}, tiny_family)
    same = resolve(known, {"w": Strength(1.7), "s": Strength(-0.3), "wplus": Strength(2.9)}, tiny_family)
    assert np.array_equal(plain.delta_w, same.delta_w) and np.array_equal(plain.style_delta, same.style_delta)


def test_masked_strengths_keep_the_usable_range(tiny_family: ModelFamily) -> None:
    known = directions(tiny_family)
    with pytest.warns(StrengthWarning, match="strength 5 of w is outside"):
        edit = resolve(known, {"w": Strength(5.0, rows=(0, 1))}, tiny_family, clamp=True)
    np.testing.assert_allclose(edit.delta_w[0], 3 * known["w"].vector, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": (2, 2)}, "rows must be"),
        ({"rows": (-1, 2)}, "rows must be"),
        ({"rows": (0, 2.0)}, "rows must be"),
        ({"ramp": (0.0, 1.5)}, "each 0 to 1"),
        ({"ramp": (-0.5, 1.0)}, "each 0 to 1"),
        ({"ramp": (1.0,)}, "two shares"),
        ({"ramp": (float("nan"), 1.0)}, "must be finite"),
    ],
)
def test_masks_that_cannot_be(fields: dict, message: str) -> None:
    with pytest.raises(DirectionError, match=message):
        Strength(1.0, **fields)


def test_a_mask_beyond_the_family_is_refused(tiny_family: ModelFamily) -> None:
    known = directions(tiny_family)
    with pytest.raises(DirectionError, match=r"rows 2 to 6 are masked in and family tiny has 6, 0 to 5"):
        resolve(known, {"w": Strength(1.0, rows=(2, 7))}, tiny_family)
    with pytest.raises(DirectionError, match="strength of w must be a number"):
        resolve(known, {"w": Strength("2")}, tiny_family)  # type: ignore[arg-type]


def test_what_does_not_fit_names_both_sides(tiny_family: ModelFamily) -> None:
    wplus = directions(tiny_family)["wplus"]
    with pytest.raises(DirectionError) as caught:
        resolve({"wplus": wplus}, {"wplus": 1.0}, FACES_1024)
    message = "direction wplus is 6 rows of 8 in w+ and does not fit family faces-1024, which takes 512 values in w, 18"
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("family", [FACES_1024, CARS_512], ids=lambda f: f.name)
def test_style_layers_take_the_rows_of_the_published_generator(family: ModelFamily) -> None:
    rows, layers = [], len(family.style_channels)
    row = 0
    for layer in range(layers):  # conv, ToRGB, then conv, conv, ToRGB; a ToRGB and the next conv share a row
        rows.append(row)
        row += layer % 3 != 1
    assert family.style_rows == tuple(rows) and rows[-1] == family.w_rows - 1
    assert family.rgb_layers == tuple(range(1, layers, 3))


def test_rows_that_a_generator_does_not_read_edit_nothing() -> None:
    """MobileStyleGAN leaves rows 16 and 17 aside; StyleGAN2 reads all."""
    vector = np.zeros((18, 512), np.float32)
    vector[16:] = 1
    common = {
        "kind": "interfacegan",
        "min_strength": -3,
        "max_strength": 3,
        "description": "",
        "source": "",
        "licence": "",
    }
    known = {
        "late": Direction(name="late", space="w+", vector=vector, **common),
        "band": Direction(name="band", space="w", vector=np.ones(512), rows=(16, 18), **common),
        "all": Direction(name="all", space="w", vector=np.ones(512), **common),
    }
    for edit in ({"late": 2.0}, {"band": -1.0}, {"all": Strength(1.0, rows=(16, 18))}, {"late": 1.0, "all": 1.0}):
        assert resolve(known, edit, FACES_1024).delta_w[16:].any()
        with pytest.raises(
            DirectionError, match="edits nothing: it moves rows from 16 on alone, which the generator of"
        ):
            resolve(known, edit, FACES_1024_MOBILE)
    # Without strength, or with a row that is read, there is nothing to refuse.
    assert not resolve(known, {"late": 0.0}, FACES_1024_MOBILE).delta_w.any()
    assert resolve(known, {"all": Strength(1.0, rows=(15, 18))}, FACES_1024_MOBILE).delta_w[15].all()


def test_styles_of_another_network_do_not_fit() -> None:
    stylespace = directions(FACES_1024)
    with pytest.raises(DirectionError, match=r"is 9088 style channels in s and does not fit .* or 6752 style channels"):
        resolve(stylespace, {"s": 1.0}, FACES_1024_MOBILE)
