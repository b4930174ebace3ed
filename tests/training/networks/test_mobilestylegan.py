"""MobileStyleGAN by its definition, on a small family, and against the graphs that its weights came in."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.bundle import mobilestylegan
from engines.family import FACES_1024_MOBILE, EditorArchitecture, ModelFamily
from engines.packages import GENERATOR
from training.methods.paper import EditingSystem
from training.networks.mobilestylegan import MobileGenerator, StyledConv, Up, grouped, inverse_haar

F = 1 / math.sqrt(2)


def slow_inverse_haar(x: np.ndarray) -> np.ndarray:
    """By its definition, pixel by pixel: first rows, then columns. 4C x H x W to C x 2H x 2W."""
    channels, height, width = x.shape[0] // 4, *x.shape[1:]
    y = np.zeros((channels, 2 * height, 2 * width))
    for c in range(channels):
        low, (vertical, horizontal, diagonal) = x[c], x[channels + 3 * c : channels + 3 * c + 3]
        left, right = np.zeros((2, 2 * height, width))
        for i in range(height):
            left[2 * i], left[2 * i + 1] = F * (low[i] + vertical[i]), F * (low[i] - vertical[i])
            right[2 * i], right[2 * i + 1] = F * (horizontal[i] + diagonal[i]), F * (horizontal[i] - diagonal[i])
        for j in range(width):
            y[c, :, 2 * j], y[c, :, 2 * j + 1] = F * (left[:, j] + right[:, j]), F * (left[:, j] - right[:, j])
    return y


@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 5),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_inverse_haar_by_its_definition(batch, channels, height, width, seed):
    x = np.random.default_rng(seed).normal(size=(batch, 4 * channels, height, width))
    y = inverse_haar(torch.from_numpy(x))
    np.testing.assert_allclose(y.numpy(), np.stack([slow_inverse_haar(one) for one in x]), atol=1e-14)
    # Orthogonal: it keeps the norm, so its transpose takes it back.
    assert y.square().sum().item() == pytest.approx(np.square(x).sum(), rel=1e-12)
    (back,) = torch.autograd.grad(inverse_haar(leaf := torch.zeros(x.shape, requires_grad=True)), leaf, y.float())
    np.testing.assert_allclose(back.numpy(), x, atol=1e-5)


@torch.no_grad()
def test_channels_in_another_order_are_the_same_to_the_bit():
    """Of a convolution's outputs, and of the bands and styles that a doubling takes; powers of two round nothing."""
    torch.manual_seed(0)
    order, style, noise = grouped(24), torch.randn(2, 8), torch.randn(1, 1, 6, 6)
    x = torch.randn(2, 8, 6, 6)
    for separable in (False, True):
        conv = StyledConv(8, 24, 4, 6, separable=separable)
        assert torch.equal(conv(x, style, noise, order), conv(x, style, noise)[:, order])
    maps, after = torch.randn(2, 24, 5, 3), 2.0 ** torch.randint(-3, 3, (2, 6))
    style = torch.randn(2, 24)
    expected = inverse_haar(maps * style[:, :, None, None]) * 2 * after[:, :, None, None]
    assert torch.equal(Up(24, 4)(maps[:, order], style, after), expected)


@pytest.fixture(scope="module")
def small() -> ModelFamily:
    """64 pixels, with the 16 x 16 feature after five of nine convolutions."""
    return dataclasses.replace(
        FACES_1024_MOBILE,
        name="small-mobile",
        size=64,
        style_dim=12,
        mapping_layers=2,
        channel_base=1024,
        channel_max=24,
        feature_resolution=16,
        encoder_size=(64, 64),
        encoder_width=8,
        encoder_blocks=1,
        editor=EditorArchitecture(
            window=8, heads=4, ftem_blocks=1, edfm_blocks=1, inner_width=8, separable=True, linear_start=True
        ),
    )


@pytest.fixture(scope="module")
def generator(small: ModelFamily) -> MobileGenerator:
    torch.manual_seed(0)
    made = MobileGenerator(small).double().eval().requires_grad_(False)
    for name, tensor in made.state_dict().items():
        if name.endswith(("noise", "bias")):
            tensor.normal_()
    return made


def code(generator: MobileGenerator, batch: int = 2) -> torch.Tensor:
    family = generator.family
    source = torch.Generator().manual_seed(1)
    return torch.randn(batch, family.w_rows, family.style_dim, generator=source, dtype=torch.float64)


def modulations(generator: MobileGenerator) -> list[torch.nn.Linear]:
    """In the order of the family's style layers."""
    blocks = [layer.modulation for block in generator.blocks for layer in (block.up, block.conv1, block.conv2)]
    return [generator.conv1.modulation, *blocks, generator.to_image.modulation]


def test_styles_are_those_of_the_family(generator: MobileGenerator) -> None:
    assert tuple(m.out_features for m in modulations(generator)) == generator.family.style_channels


def test_a_styled_convolution_by_its_definition(generator: MobileGenerator) -> None:
    conv = generator.blocks[0].conv1
    x, style = torch.randn(2, 6, 5, 5, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    noise = torch.randn(1, 1, 5, 5, dtype=torch.float64)
    weight = conv.weight * conv.depthwise[:, 0][None]
    expected = []
    for image, s in zip(x, style, strict=True):
        y = torch.nn.functional.conv2d(image[None], weight * s[None, :, None, None] / math.sqrt(9 * 6), padding=1)
        y = y + noise + conv.bias[None, :, None, None]
        expected.append(torch.where(y < 0, 0.2 * y, y))
    torch.testing.assert_close(conv(x, style, noise), torch.cat(expected), rtol=1e-12, atol=1e-12)


def test_the_halves_make_the_whole(generator: MobileGenerator) -> None:
    w_plus, family = code(generator), generator.family
    feature, rgb = generator.lower(w_plus)
    assert rgb is None and feature.shape == (2, *family.feature_shape)
    whole = generator(w_plus)
    assert whole.shape == (2, 3, 64, 64) and torch.equal(generator.upper(feature, w_plus), whole)
    torch.testing.assert_close(generator(w_plus[1:]), whole[1:], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="there is no fresh noise to draw"):
        generator.lower(w_plus, random_noise=True)


def test_each_row_moves_what_the_family_says(generator: MobileGenerator) -> None:
    family, w_plus = generator.family, code(generator)
    seen: dict[int, torch.Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, style, index=index: seen.__setitem__(index, style))
        for index, layer in enumerate(modulations(generator))
    ]
    image, before = generator(w_plus), dict(seen)
    for row in range(family.w_rows):
        moved = w_plus.clone()
        moved[:, row] += 1
        changed = generator(moved)
        layers = {index for index, style in seen.items() if not torch.equal(style, before[index])}
        assert layers == {index for index, of in enumerate(family.style_rows) if of == row}, row
        assert torch.equal(changed, image) == (row >= family.w_rows - 2)
        # The feature is all that leaves the lower half, and the upper half reads the rows above it alone.
        assert torch.equal(generator.lower(moved)[0], generator.lower(w_plus)[0]) == (row >= family.feature_conv)
        feature = generator.lower(w_plus)[0]
        same = torch.equal(generator.upper(feature, moved), image)
        assert same == (row < family.feature_conv or row >= family.w_rows - 2)
    for hook in hooks:
        hook.remove()


def test_a_style_delta_adds_to_its_layers_style(generator: MobileGenerator) -> None:
    family, w_plus = generator.family, code(generator)
    delta = torch.zeros(2, sum(family.style_channels), dtype=torch.float64)
    assert torch.equal(generator(w_plus, delta), generator(w_plus))
    for layer, part in zip(modulations(generator), delta.split(family.style_channels, dim=1), strict=True):
        part.copy_(torch.randn(part.shape[1], dtype=torch.float64))
        moved = generator(w_plus, delta)
        layer.bias.add_(part[0])
        torch.testing.assert_close(generator(w_plus), moved, rtol=1e-10, atol=1e-10)
        layer.bias.sub_(part[0])
        part.zero_()


@pytest.mark.parametrize("origin", [((4, 3), (0, 8)), ((8, 8), (5, 0))])
def test_a_window_is_that_part_of_the_picture(generator: MobileGenerator, origin) -> None:
    """Two cells from a window's edge on: a convolution's reach, and that of those above it at finer pixels."""
    family, w_plus = generator.family, code(generator)
    feature = generator.lower(w_plus)[0]
    whole, side, cell = generator.upper(feature, w_plus), 8, family.size // family.feature_resolution
    parts = torch.stack([f[:, y : y + side, x : x + side] for f, (y, x) in zip(feature, origin, strict=True)])
    window = generator.upper(parts, w_plus, origin=torch.tensor(origin))
    assert window.shape == (2, 3, side * cell, side * cell)
    inner = slice(2 * cell, (side - 2) * cell)
    for part, image, (y, x) in zip(window, whole, origin, strict=True):
        there = image[:, y * cell : (y + side) * cell, x * cell : (x + side) * cell]
        torch.testing.assert_close(part[:, inner, inner], there[:, inner, inner], rtol=1e-10, atol=1e-10)
    # Without its origin a window takes the noise of the corner, where there is any.
    assert not torch.allclose(window, generator.upper(parts, w_plus, origin=torch.zeros(2, 2, dtype=torch.int64)))


def test_a_light_system_starts_as_linear_editing(small: ModelFamily) -> None:
    """Its editor adds what the edit changes in the generator's own feature, and nothing to a photo without an edit."""
    torch.manual_seed(2)
    system = EditingSystem(small).eval().requires_grad_(False)
    feature, edited, enhanced = torch.randn(3, 2, *small.feature_shape)
    linear = enhanced + edited - feature
    start = system.transform(feature, edited, enhanced)
    # The gates of EDEM, 1/2 to 0.73, and EDFM, 2, leave the change whole or somewhat more.
    share = (start - enhanced) / (edited - feature)
    assert 1.0 < share.min() and share.max() < 1.47 and (linear - start).abs().max() > 0
    torch.testing.assert_close(system.transform(feature, feature, enhanced), enhanced)


@pytest.fixture(scope="module")
def real() -> MobileGenerator:
    if GENERATOR.installed() is None:
        pytest.skip(f"{GENERATOR} is not installed")
    arrays = mobilestylegan.read()
    made = MobileGenerator(FACES_1024_MOBILE).eval().requires_grad_(False)
    made.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    return made


@pytest.fixture(scope="module")
def theirs(real: MobileGenerator) -> tuple[object, object]:
    """The package's own mapping and synthesis graphs, compiled."""
    openvino = pytest.importorskip("openvino", reason="openvino, which runs the package's own graphs, is not installed")
    package = GENERATOR.installed()
    assert package is not None
    folder = package / "data"
    core, options = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    mapping, synthesis = (
        core.compile_model(core.read_model(folder / f"{name}.xml"), "CPU", options)
        for name in ("MappingNetwork", "SynthesisNetwork")
    )
    return mapping, synthesis


def relative(ours: torch.Tensor, other: np.ndarray) -> float:
    """The norm of the difference over that of the other's values."""
    return float(np.linalg.norm(ours.numpy() - other) / np.linalg.norm(other))


def test_the_mapping_equals_the_packages_own_graph(real: MobileGenerator, theirs) -> None:
    z = torch.randn(3, 512, generator=torch.Generator().manual_seed(3))
    w = real.mapping(z)
    assert max(relative(w[i], theirs[0](z[i : i + 1].numpy())[0][0]) for i in range(3)) < 1e-5


def test_pictures_equal_those_of_the_packages_own_graph(real: MobileGenerator, theirs) -> None:
    z = torch.randn(2, 512, generator=torch.Generator().manual_seed(4))
    w = real.mapping(z)
    pictures = [theirs[1](w[i : i + 1].numpy())[0] for i in range(2)]
    assert pictures[0].shape == (1, 3, 1024, 1024)
    assert relative(real(real.broadcast(w[:1])), pictures[0]) < 1e-5
    together = real(real.broadcast(w))
    assert relative(together, np.concatenate(pictures)) < 1e-5
    # A fiftieth of a grey level, at any pixel.
    assert np.abs(together.numpy() - np.concatenate(pictures)).max() < 2 / 255 / 50
    # Faces, not noise: a photo's range, and neighbouring pixels alike.
    picture = torch.from_numpy(pictures[0])
    assert 0.2 < picture.std() < 1 and (picture[..., 1:] - picture[..., :-1]).abs().mean() < 0.1
