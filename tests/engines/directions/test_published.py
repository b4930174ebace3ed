"""The published recipes, computed a second time by hand, on real e4e codes and the official files where those are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines.contracts import style_width
from engines.directions import Direction, Strength, resolve
from engines.directions.published import (
    About,
    ganspace,
    interfacegan,
    style_deviations,
    style_index,
    styleclip_global,
    stylespace,
)
from engines.directions.recipes import CHANNELS, COMPONENTS, recipe
from engines.errors import DirectionError
from engines.family import CARS_512, FACES_1024, FACES_1024_MOBILE, FAMILIES, ModelFamily

ABOUT = About(name="x", min_strength=-30, max_strength=30, description="d", source="s", licence="MIT")


def edited(direction: Direction, strength: float, codes: np.ndarray, family: ModelFamily = FACES_1024) -> np.ndarray:
    return codes + resolve({"x": direction}, {"x": strength}, family).delta_w


@pytest.fixture(scope="module")
def codes(shared: Path) -> np.ndarray:
    """68 x 18 x 512: what e4e gave for real photos."""
    return np.load(shared / "directions" / "styleclip_e4e_w_plus.npy")


@pytest.fixture(scope="module")
def pca() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    axes, _ = np.linalg.qr(rng.normal(size=(512, 80)))
    return {
        "mean": rng.normal(size=(1, 512)).astype(np.float32),
        "comp": axes.T[:, None].astype(np.float32),
        "std": np.linspace(3, 0.4, 80, dtype=np.float32),
    }


def test_interfacegan_in_w_moves_every_row_alike(codes: np.ndarray) -> None:
    vector = np.random.default_rng(0).normal(size=(1, 512)).astype(np.float32)
    direction = interfacegan(vector, FACES_1024, ABOUT)
    assert direction.space == "w" and direction.kind == "interfacegan"
    expected = np.stack([[row + 2.5 * vector[0] for row in code] for code in codes])
    np.testing.assert_allclose(edited(direction, 2.5, codes), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(18, 512), (1, 18, 512), (9216,), (1, 9216), (18, 1, 512), (1, 18, 1, 512)])
def test_interfacegan_in_w_plus_in_all_its_shapes(shape: tuple[int, ...]) -> None:
    vector = np.random.default_rng(0).normal(size=(18, 512))
    direction = interfacegan(vector.reshape(shape), FACES_1024, ABOUT)
    assert direction.space == "w+" and np.array_equal(direction.vector, vector.astype(np.float32))


@pytest.mark.parametrize("shape", [(512,), (1, 512), (512, 1), (1, 1, 512)])
def test_interfacegan_in_w_in_all_its_shapes(shape: tuple[int, ...]) -> None:
    vector = np.random.default_rng(0).normal(size=512)
    direction = interfacegan(vector.reshape(shape), FACES_1024, ABOUT)
    assert direction.space == "w" and np.array_equal(direction.vector, vector.astype(np.float32))


def test_ganspaces_own_names_are_its_recipes_too(pca: dict[str, np.ndarray]) -> None:
    own = {"act_mean": pca["mean"], "act_comp": pca["comp"], "act_stdev": pca["std"], "lat_comp": pca["comp"] * 2}
    theirs, ours = (ganspace(arrays, FACES_1024, 11, (1, 4), ABOUT) for arrays in (pca, own))
    assert np.array_equal(ours.vector, theirs.vector) and ours.origin == theirs.origin
    with pytest.raises(DirectionError, match="has no act_stdev; a GANSpace file holds act_mean, act_comp, act_stdev"):
        ganspace({"act_mean": pca["mean"], "act_comp": pca["comp"]}, FACES_1024, 11, None, ABOUT)


def test_ganspace_equals_its_recipe(pca: dict[str, np.ndarray], codes: np.ndarray) -> None:
    for name, made in COMPONENTS[FACES_1024.name].items():
        direction = ganspace(pca, FACES_1024, made.component, made.rows, ABOUT)
        first, end = made.rows
        expected = codes.copy()
        expected[:, first:end] += made.strength * pca["std"][made.component] * pca["comp"][made.component]
        np.testing.assert_allclose(edited(direction, made.strength, codes), expected, atol=2e-5, err_msg=name)
        low, high = made.range
        assert low <= made.strength <= high and low < high


def test_ganspace_reaches_the_published_coordinate(pca: dict[str, np.ndarray], codes: np.ndarray) -> None:
    """encoder4editing's form: (strength - coordinate) * component * deviation, the coordinate that of the first row."""
    direction = ganspace(pca, FACES_1024, 11, (1, 4), ABOUT)
    axis, deviation = pca["comp"][11, 0].astype(np.float64), float(pca["std"][11])
    for code in codes[:10]:
        coordinate = float((code[0] - pca["mean"][0]) @ axis / deviation)
        assert direction.coordinate(code) == pytest.approx(coordinate, abs=1e-5)
        expected = code.astype(np.float64)
        expected[1:4] += (-10.5 - coordinate) * axis * deviation
        np.testing.assert_allclose(edited(direction, -10.5 - direction.coordinate(code), code), expected, atol=2e-5)
    assert direction.coordinate(pca["mean"][0]) == pytest.approx(0, abs=1e-6)
    moved = edited(ganspace(pca, FACES_1024, 11, None, ABOUT), 3.0, codes)
    assert direction.coordinate(moved[0]) - direction.coordinate(codes[0]) == pytest.approx(3, abs=1e-5)


def test_edits_add_up_and_can_be_taken_back(pca: dict[str, np.ndarray], codes: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    known = {
        "w": interfacegan(rng.normal(size=512), FACES_1024, ABOUT),
        "w+": interfacegan(rng.normal(size=(18, 512)), FACES_1024, ABOUT),
        "pc": ganspace(pca, FACES_1024, 3, (2, 7), ABOUT),
    }
    forth = {"w": 2.0, "w+": -1.5, "pc": 7.0}
    together = codes + resolve(known, forth, FACES_1024).delta_w
    one_by_one = codes
    for name, strength in forth.items():
        one_by_one = one_by_one + resolve(known, {name: strength}, FACES_1024).delta_w
    np.testing.assert_allclose(together, one_by_one, atol=2e-5)
    back = together + resolve(known, {name: -strength for name, strength in forth.items()}, FACES_1024).delta_w
    np.testing.assert_allclose(back, codes, atol=2e-6)
    masked = codes + resolve(known, {"w": Strength(2.0, rows=(8, 18))}, FACES_1024).delta_w
    assert np.array_equal(masked[:, :8], codes[:, :8]) and (masked[:, 8:] != codes[:, 8:]).any(axis=(0, 2)).all()


def test_style_offsets_equal_a_count_by_hand() -> None:
    widths = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
    offsets, at, below = [], 0, None
    for width in widths.values():
        for layer in [width, width] if below is None else [below, width, width]:
            offsets.append((at, layer))
            at += layer
        below = width
    assert at == 9088 and len(offsets) == 26
    for layer, (start, width) in enumerate(offsets):
        assert style_index(FACES_1024, layer, 0) == start
        assert style_index(FACES_1024, layer, width - 1) == start + width - 1
        with pytest.raises(DirectionError, match=rf"no channel {width} in style layer {layer} .*0 to {width - 1}"):
            style_index(FACES_1024, layer, width)
    assert style_index(FACES_1024, 6, 501) == 6 * 512 + 501
    assert style_index(FACES_1024, 15, 45) == 15 * 512 + 45
    with pytest.raises(DirectionError, match="no style layer 26 in family faces-1024, which has 26, 0 to 25"):
        style_index(FACES_1024, 26, 0)
    with pytest.raises(DirectionError, match="no style layer -1"):
        style_index(FACES_1024, -1, 0)


def statistics(family: ModelFamily) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(4)
    return [[rng.uniform(0.1, 2, width).astype(np.float32) for width in family.style_channels] for _ in range(2)]


def test_stylespace_moves_its_channels_by_their_deviations() -> None:
    means, deviations = statistics(FACES_1024)
    unit = style_deviations([means, deviations], FACES_1024)
    for channels in CHANNELS[FACES_1024.name].values():
        direction = stylespace(channels, FACES_1024, unit, ABOUT)
        edit = resolve({"x": direction}, {"x": -3.0}, FACES_1024)
        layers = np.split(edit.style_delta, np.cumsum(FACES_1024.style_channels)[:-1])
        assert not edit.delta_w.any() and np.count_nonzero(edit.style_delta) == len(channels)
        for layer, channel in channels:
            assert layers[layer][channel] == pytest.approx(-3 * deviations[layer][channel], rel=1e-6)
            assert layer not in FACES_1024.rgb_layers
    plain = stylespace(((9, 108),), CARS_512, 3.0, ABOUT)
    assert plain.vector[9 * 512 + 108] == 3.0 and plain.units == "3 in the style"


def test_stylespace_is_of_stylegan2() -> None:
    """Layer 6 and channel 501 exist in MobileStyleGAN as well, and mean nothing there."""
    with pytest.raises(DirectionError, match=r"numbered as StyleGAN2 has them; .* whose 6752 channels are others"):
        stylespace(((6, 501),), FACES_1024_MOBILE, 3.0, ABOUT)
    with pytest.raises(
        DirectionError, match="26 style layers with 9088 channels, as faces-1024 has; family faces-1024-"
    ):
        style_deviations(statistics(FACES_1024), FACES_1024_MOBILE)


def test_styleclip_equals_its_recipe() -> None:
    rng = np.random.default_rng(6)
    means, deviations = statistics(FACES_1024)
    matrix = rng.normal(size=(6048, 512)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    text = rng.normal(size=512).astype(np.float32)
    beta = 0.1
    unit = style_deviations([means, deviations], FACES_1024)
    direction, moved = styleclip_global(matrix, 4 * text[None], unit, FACES_1024, beta, ABOUT)
    # The official order of steps, layer by layer: cut off, divide by the largest, then times each layer's deviations.
    scores = matrix @ (text / np.linalg.norm(text))
    scores = np.where(np.abs(scores) < beta, 0, scores)
    scores /= np.abs(scores).max()
    expected, at = [], 0
    for layer, width in enumerate(FACES_1024.style_channels):
        if layer % 3 == 1:
            expected.append(np.zeros(width))
        else:
            expected.append(scores[at : at + width] * deviations[layer])
            at += width
    assert at == 6048 and 0 < moved < 6048 and moved == np.count_nonzero(scores)
    np.testing.assert_allclose(direction.vector, np.concatenate(expected), atol=1e-6)
    assert direction.kind == "styleclip" and direction.space == "s"


def test_recipes_fit_their_families() -> None:
    for tables in (COMPONENTS, CHANNELS):
        assert set(tables) <= set(FAMILIES)
    for name, table in CHANNELS.items():
        for channels in table.values():
            assert [style_index(FAMILIES[name], *channel) for channel in channels]
    for name, table in COMPONENTS.items():
        for made in table.values():
            assert 0 <= made.component < 80 and 0 <= made.rows[0] < made.rows[1] <= FAMILIES[name].w_rows


def test_unknown_recipes_get_close_names() -> None:
    with pytest.raises(DirectionError, match="unknown recipe 'Smilling'; did you mean smiling"):
        recipe(CHANNELS, FACES_1024.name, "Smilling")
    with pytest.raises(DirectionError, match="for family cars-512x384 there are pose, cube, color, grass"):
        recipe(COMPONENTS, CARS_512.name, "eye_openness")
    with pytest.raises(DirectionError, match="no recipes for family demo-64, only for faces-1024, cars-512x384"):
        recipe(COMPONENTS, "demo-64", "cube")


@pytest.mark.parametrize(
    ("shape", "family", "message"),
    [
        (
            (1, 18, 512),
            CARS_512,
            "holds 18 rows of 512 in w+, as faces-1024 and faces-1024-mobile have; it does not fit family cars-512x384",
        ),
        ((1, 16, 512), FACES_1024, "holds 16 rows of 512 in w+, as cars-512x384 has"),
        ((1, 7, 512), FACES_1024, "holds 7 rows of 512 in w+; it does not fit family faces-1024, which takes 512"),
        ((1, 128), FACES_1024, "holds 128 values in w; it does not fit"),
        ((9088,), FACES_1024, "holds 9088 style channels in s, which is not a space of InterFaceGAN"),
        ((2, 18, 512), FACES_1024, "holds an array of shape (2, 18, 512)"),
        ((0,), FACES_1024, "holds 0 values in w"),
        ((), FACES_1024, "holds an array of shape ()"),
    ],
)
def test_vectors_of_another_space_or_row_count(shape: tuple[int, ...], family: ModelFamily, message: str) -> None:
    with pytest.raises(DirectionError) as caught:
        interfacegan(np.ones(shape), family, ABOUT)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_not_finite_numbers() -> None:
    vector = np.ones(512)
    vector[7] = np.nan
    for bad in (vector, np.full(512, np.inf), np.array(["a"] * 512), np.full(512, None)):
        with pytest.raises(DirectionError, match="is not made of finite numbers"):
            interfacegan(bad, FACES_1024, ABOUT)


@pytest.mark.parametrize(
    ("change", "component", "rows", "message"),
    [
        ({}, 80, None, "there is no component 80; the file has 80, 0 to 79"),
        ({}, -1, None, "there is no component -1"),
        ({}, 0, (16, 19), "rows 16 to 18 are not all in family faces-1024, which has 18, 0 to 17"),
        ({}, 0, (3, 3), "rows must be"),
        ({"comp": None}, 0, None, "has no comp; a GANSpace file holds mean, comp, std"),
        ({"mean": np.zeros(128)}, 0, None, "mean has shape"),
        ({"comp": np.zeros((80, 128))}, 0, None, "comp has shape"),
        ({"std": np.full(80, np.nan)}, 0, None, "std is not made of finite numbers"),
        ({"std": np.zeros(80)}, 0, None, "component 0 is zero"),
    ],
)
def test_components_that_cannot_be(pca: dict, change: dict, component: int, rows: tuple | None, message: str) -> None:
    arrays = {key: value for key, value in (pca | change).items() if value is not None}
    with pytest.raises(DirectionError, match=message):
        ganspace(arrays, FACES_1024, component, rows, ABOUT)


def test_statistics_that_do_not_fit() -> None:
    of_faces = statistics(FACES_1024)
    with pytest.raises(DirectionError, match="26 style layers with 9088 channels, as faces-1024 has; family cars"):
        style_deviations(of_faces, CARS_512)
    with pytest.raises(DirectionError, match="two lists"):
        style_deviations(of_faces[:1], FACES_1024)
    with pytest.raises(DirectionError, match="two lists"):
        style_deviations(np.ones((2, 26)), FACES_1024)  # type: ignore[arg-type]
    with pytest.raises(DirectionError, match="negative"):
        style_deviations([of_faces[0], [-layer for layer in of_faces[1]]], FACES_1024)
    with pytest.raises(DirectionError, match="finite"):
        style_deviations([of_faces[0], [layer * np.nan for layer in of_faces[1]]], FACES_1024)
    for channels in ((), ((6, 501), (6, 501))):
        with pytest.raises(DirectionError, match="at least one style channel, and none twice"):
            stylespace(channels, FACES_1024, 1.0, ABOUT)


def test_style_channels_that_would_not_move() -> None:
    unit = style_deviations(statistics(FACES_1024), FACES_1024)
    unit[style_index(FACES_1024, 9, 6)] = 0
    with pytest.raises(DirectionError, match="style 9:6 would not move: the statistics give no deviation"):
        stylespace(((6, 501), (9, 6)), FACES_1024, unit, ABOUT)
    with pytest.raises(DirectionError, match="style 6:501, 9:6 would not move: a unit of 0"):
        stylespace(((6, 501), (9, 6)), FACES_1024, 0.0, ABOUT)
    with pytest.raises(DirectionError, match="the unit must be a finite number, got nan"):
        stylespace(((6, 501),), FACES_1024, float("nan"), ABOUT)
    rng = np.random.default_rng(0)
    relevance, text = rng.normal(size=(6048, 512)), rng.normal(size=512)
    still = np.zeros(style_width(FACES_1024))
    with pytest.raises(DirectionError, match="the vector is zero"):
        styleclip_global(relevance, text, still, FACES_1024, 0.1, ABOUT)
    still[:512] = 1
    direction, moved = styleclip_global(relevance, text, still, FACES_1024, 0.1, ABOUT)
    assert moved == np.count_nonzero(direction.vector) <= 512


@pytest.mark.parametrize(
    ("matrix", "text", "beta", "message"),
    [
        ((9088, 512), 512, 0.1, "takes 6048 rows, one for each style channel of its convolutions"),
        ((6048, 256), 512, 0.1, "the text takes 256 values"),
        ((6048, 512), 512, 2.0, "no channel reaches beta 2: the largest relevance is "),
        ((6048, 512), 512, -0.1, "nor beta negative"),
        ((6048, 512), 512, float("nan"), "nor beta negative"),
    ],
)
def test_texts_that_do_not_fit(matrix: tuple[int, int], text: int, beta: float, message: str) -> None:
    ones = np.ones(style_width(FACES_1024))
    with pytest.raises(DirectionError, match=message):
        styleclip_global(np.full(matrix, 0.01, np.float32), np.ones(text), ones, FACES_1024, beta, ABOUT)
