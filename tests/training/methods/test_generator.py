from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.methods.generator import Point, TappedGenerator, first_conv_point, input_point
from training.methods.hyperstyle import conv_widths, delta_index
from training.networks.stylegan2 import Generator

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def generator(tiny, liven):
    return liven(TappedGenerator(tiny))


@pytest.fixture
def code(tiny):
    return torch.randn(2, tiny.w_rows, tiny.style_dim)


def elements(generator: Generator, w_plus: torch.Tensor) -> list[torch.Tensor]:
    """The constant, then the output of each convolution."""
    found = [generator.input(w_plus)]
    for index, layer in enumerate([generator.conv1, *generator.convs]):
        style = layer.conv.modulation(w_plus[:, index])
        found.append(layer(found[-1], style, generator.noises.get_buffer(f"noise_{index}")))
    return found


def image_of(generator: Generator, w_plus: torch.Tensor, seen: list[torch.Tensor]) -> torch.Tensor:
    """The image from what each ToRGB sees, from 4 x 4 up."""
    image = None
    for level, (layer, x) in enumerate(zip([generator.to_rgb1, *generator.to_rgbs], seen, strict=True)):
        image = layer(x, layer.conv.modulation(w_plus[:, 2 * level + 1]), image)
    return image


def test_points_are_those_of_the_published_feature_lists():
    assert input_point(16) == Point(5, True)
    assert input_point(64) == Point(9, True)
    # The first 64 x 64 convolution is convs.6, the 8th counted from the 4 x 4 one.
    assert first_conv_point(64) == Point(7, False)


@torch.no_grad()
def test_without_a_point_it_is_the_generator(generator, code):
    torch.testing.assert_close(generator.render(code), Generator.forward(generator, code), **CLOSE)
    assert generator(code).feature is None


@torch.no_grad()
@pytest.mark.parametrize("resolution", [8, 32])
def test_features_are_elements_of_the_list(generator, code, resolution):
    listed = elements(generator, code)
    element = {8: 3, 32: 7}[resolution]
    assert listed[element].shape[2] == resolution
    assert torch.equal(generator.feature(code, input_point(resolution)), listed[element])
    first = generator.feature(code, first_conv_point(resolution))
    assert torch.equal(first, listed[element - 1])
    assert first.shape[2] == resolution
    image, feature = generator(code, input_point(resolution))
    assert torch.equal(feature, listed[element])
    assert torch.equal(image, generator.render(code))


@torch.no_grad()
def test_a_feature_inserted_before_a_convolution_leaves_the_to_rgb_below_alone(generator, code):
    new = torch.randn(2, 16, 8, 8)
    listed = elements(generator, code)
    x, seen = new, [listed[1], listed[3]]
    for index in range(3, len(generator.convs) + 1):
        layer = generator.convs[index - 1]
        x = layer(x, layer.conv.modulation(code[:, index]), generator.noises.get_buffer(f"noise_{index}"))
        if index % 2 == 0:
            seen.append(x)
    expected = image_of(generator, code, seen)
    torch.testing.assert_close(generator.render(code, input_point(8), lambda _: new), expected, **CLOSE)


@torch.no_grad()
def test_a_change_after_a_convolution_reaches_everything_above(generator, code):
    listed = elements(generator, code)
    x, seen = listed[2] * 2 + 1, [listed[1]]
    for index in range(2, len(generator.convs) + 1):
        layer = generator.convs[index - 1]
        x = layer(x, layer.conv.modulation(code[:, index]), generator.noises.get_buffer(f"noise_{index}"))
        if index % 2 == 0:
            seen.append(x)
    expected = image_of(generator, code, seen)
    torch.testing.assert_close(generator.render(code, first_conv_point(8), lambda f: f * 2 + 1), expected, **CLOSE)


@torch.no_grad()
def test_clamped_layers(tiny, liven, code):
    free, bounded = TappedGenerator(tiny), TappedGenerator(tiny, clamp=0.5)
    bounded.load_state_dict(liven(free).state_dict())
    x, seen = bounded.input(code), []
    for index, layer in enumerate([bounded.conv1, *bounded.convs]):
        x = layer(x, layer.conv.modulation(code[:, index]), bounded.noises.get_buffer(f"noise_{index}")).clamp(
            -0.5, 0.5
        )
        if index % 2 == 0:
            to_rgb = bounded.to_rgb1 if index == 0 else bounded.to_rgbs[index // 2 - 1]
            rgb = to_rgb(x, to_rgb.conv.modulation(code[:, index + 1])).clamp(-0.5, 0.5)
            seen.append(rgb)
    image = seen[0]
    for layer, rgb in zip(bounded.to_rgbs, seen[1:], strict=True):
        # Each contribution is bounded, not the sum.
        image = rgb + layer.upsample(image)
    torch.testing.assert_close(bounded.render(code), image, **CLOSE)
    assert not torch.allclose(free.render(code), image, atol=0.1)


def reference_convolution(layer, x, style, delta, noise):
    """One modulated, demodulated weight per image, from the definition."""
    out = []
    for x_i, s_i, d_i in zip(x.expand(len(style), -1, -1, -1), style, delta, strict=True):
        conv = layer.conv
        weight = conv.weight[0] * (1 + d_i) * conv.scale * s_i[None, :, None, None]
        weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        if conv.upsample:
            out.append(conv.blur(F.conv_transpose2d(x_i[None], weight.transpose(0, 1), stride=2)))
        else:
            out.append(F.conv2d(x_i[None], weight, padding=1))
    return layer.activate(layer.noise(torch.cat(out), noise))


@torch.no_grad()
@pytest.mark.parametrize("taps", [1, 3])
def test_refined_weights_are_each_images_own(generator, code, tiny, taps):
    deltas = {i: torch.randn(2, o, n, taps, taps) * 0.5 for i, (n, o) in enumerate(conv_widths(tiny)) if i != 3}
    x, seen = generator.input(code), []
    for index, layer in enumerate([generator.conv1, *generator.convs]):
        style = layer.conv.modulation(code[:, index])
        delta = deltas.get(index, torch.zeros(2, 1, 1, 1, 1))
        x = reference_convolution(layer, x, style, delta, generator.noises.get_buffer(f"noise_{index}"))
        if index % 2 == 0:
            seen.append(x)
    image = generator.render(code, deltas=deltas)
    torch.testing.assert_close(image, image_of(generator, code, seen), **CLOSE)
    alone = generator.render(code[1:], deltas={i: d[1:] for i, d in deltas.items()})
    torch.testing.assert_close(image[1:], alone, **CLOSE)
    assert not torch.allclose(image, generator.render(code), atol=0.05)


def test_delta_indices_count_the_to_rgb_layers():
    assert [delta_index(conv) for conv in range(7)] == [0, 2, 3, 5, 6, 8, 9]
