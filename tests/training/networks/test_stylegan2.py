from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from engines.directions.published import style_index
from training.networks.discriminator import minibatch_stddev
from training.networks.stylegan2 import Generator, ModulatedConv2d, UpsampleRGB


def per_sample_weight_form(layer: ModulatedConv2d, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """The definition: one modulated, demodulated weight per sample, applied sample by sample."""
    out = []
    for image, s in zip(x, style, strict=True):
        weight = layer.weight[0] * layer.scale * s[None, :, None, None]
        if layer.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        if layer.upsample:
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
            kernel = torch.outer(taps, taps) / 16
            y = F.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2)
            out.append(F.conv2d(F.pad(y, (1, 1, 1, 1)).transpose(0, 1), kernel[None, None]).transpose(0, 1))
        else:
            out.append(F.conv2d(image[None], weight, padding=layer.padding))
    return torch.cat(out)


@pytest.mark.parametrize(("kernel", "demodulate", "upsample"), [(3, True, False), (3, True, True), (1, False, False)])
def test_activation_scaled_form_equals_per_sample_weights(kernel, demodulate, upsample):
    torch.manual_seed(0)
    layer = ModulatedConv2d(7, 5, kernel, 4, demodulate=demodulate, upsample=upsample).double()
    x, style = torch.randn(3, 7, 6, 6).double(), torch.randn(3, 7).double()
    y = layer(x, style)
    assert y.shape == (3, 5, 12, 12) if upsample else (3, 5, 6, 6)
    torch.testing.assert_close(y, per_sample_weight_form(layer, x, style), rtol=1e-10, atol=1e-10)


def test_rgb_upsampling_is_zero_insertion_and_fir():
    x = torch.randn(2, 3, 5, 5)
    inserted = torch.zeros(2, 3, 10, 10)
    inserted[:, :, ::2, ::2] = x
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = (torch.outer(taps, taps) / 16).expand(3, 1, 4, 4)
    expected = F.conv2d(F.pad(inserted, (2, 1, 2, 1)), kernel, groups=3)
    torch.testing.assert_close(UpsampleRGB()(x), expected)


@pytest.fixture
def generator(tiny, randomise):
    return randomise(Generator(tiny))


def code(family, batch=2):
    return torch.randn(batch, family.w_rows, family.style_dim)


def test_public_checkpoint_names(generator):
    names = set(generator.state_dict())
    expected = {
        "style.1.weight", "input.input", "conv1.conv.modulation.bias", "convs.0.conv.blur.kernel",
        "convs.1.noise.weight", "convs.5.activate.bias", "to_rgb1.bias", "to_rgbs.0.upsample.kernel", "noises.noise_6",
    }  # fmt: skip
    assert expected <= names
    assert "to_rgb1.upsample.kernel" not in names
    assert "convs.1.conv.blur.kernel" not in names


@torch.no_grad()
def test_lower_and_upper_compose_to_forward(generator, tiny):
    w = code(tiny)
    feature, rgb = generator.lower(w)
    assert feature.shape == (2, *tiny.feature_shape)
    assert rgb.shape == (2, 3, *tiny.feature_shape[1:])
    assert torch.equal(generator.upper(feature, w, rgb), generator(w))
    assert torch.equal(generator.lower(w, with_rgb=False)[0], feature)


@torch.no_grad()
def test_rows_read_by_each_half(generator, tiny):
    w = code(tiny)
    feature, rgb = generator.lower(w)
    image = generator.upper(feature, w)
    changed: dict[str, set[int]] = {"feature": set(), "rgb": set(), "upper": set()}
    for row in range(tiny.w_rows):
        other = w.clone()
        other[:, row] += 1.0
        feature_2, rgb_2 = generator.lower(other)
        for name, same in (
            ("feature", torch.equal(feature, feature_2)),
            ("rgb", torch.equal(rgb, rgb_2)),
            ("upper", torch.equal(image, generator.upper(feature, other))),
        ):
            if not same:
                changed[name].add(row)
    assert changed["feature"] == set(range(tiny.feature_conv))
    assert changed["rgb"] == set(range(tiny.feature_rows))
    # Row feature_conv drives the feature's ToRGB and the first convolution above it.
    assert changed["upper"] == set(range(tiny.feature_conv, tiny.w_rows))


@torch.no_grad()
def test_style_delta_adds_to_the_styles(generator, tiny):
    w = code(tiny)
    delta = torch.randn(sum(tiny.style_channels))
    shifted = copy.deepcopy(generator)
    layers = [shifted.conv1, shifted.to_rgb1]
    for block, to_rgb in enumerate(shifted.to_rgbs):
        layers += [shifted.convs[2 * block], shifted.convs[2 * block + 1], to_rgb]
    for layer, part in zip(layers, delta.split(tiny.style_channels), strict=True):
        layer.conv.modulation.bias += part
    expected = shifted(w)
    torch.testing.assert_close(generator(w, delta.expand(2, -1)), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(generator(w), expected, atol=1e-2)
    assert torch.equal(generator(w, torch.zeros(2, len(delta))), generator(w))


@torch.no_grad()
def test_a_style_channel_reaches_the_modulated_convolution_of_its_number(generator, tiny):
    """StyleSpace's numbering with ToRGB: conv1, to_rgb1, then two convolutions and a ToRGB of each resolution."""
    layers = [generator.conv1, generator.to_rgb1]
    for block, to_rgb in enumerate(generator.to_rgbs):
        layers += [generator.convs[2 * block], generator.convs[2 * block + 1], to_rgb]
    assert [layer.conv.weight.shape[2] for layer in layers] == list(tiny.style_channels)
    assert [i for i, layer in enumerate(layers) if layer in (generator.to_rgb1, *generator.to_rgbs)] == list(
        tiny.rgb_layers
    )
    styles: dict[int, torch.Tensor] = {}
    for number, layer in enumerate(layers):
        layer.conv.register_forward_pre_hook(lambda _, inputs, number=number: styles.update({number: inputs[1]}))
    w = code(tiny)
    generator(w)
    before = dict(styles)
    for number, layer in enumerate(layers):
        torch.testing.assert_close(before[number], layer.conv.modulation(w[:, tiny.style_rows[number]]))
        channel = (7 * number + 3) % tiny.style_channels[number]
        delta = torch.zeros(len(w), sum(tiny.style_channels))
        delta[:, style_index(tiny, number, channel)] = 2.0
        generator(w, delta)
        for other in styles:
            moved = styles[other] - before[other]
            expected = torch.zeros_like(moved)
            if other == number:
                expected[:, channel] = 2.0
            torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_stored_noise_is_repeatable_and_random_noise_is_not(generator, tiny):
    w = code(tiny)
    assert torch.equal(generator(w), generator(w))
    assert not torch.equal(generator(w, random_noise=True), generator(w, random_noise=True))


@torch.no_grad()
def test_mapping_normalises_its_input(generator, tiny):
    z = torch.randn(3, tiny.style_dim)
    w = generator.mapping(z)
    assert w.shape == (3, tiny.style_dim)
    torch.testing.assert_close(generator.mapping(5 * z), w, rtol=1e-4, atol=1e-5)
    rows = generator.broadcast(w)
    assert rows.shape == (3, tiny.w_rows, tiny.style_dim)
    assert torch.equal(rows[:, 0], rows[:, -1])


def test_minibatch_stddev_groups_lie_apart():
    # Eight constant images in groups of four: images 0, 2, 4, 6 form one group, 1, 3, 5, 7 the other.
    x = torch.tensor([0.0, 1.0, 2.0, 1.0, 4.0, 1.0, 6.0, 1.0]).view(8, 1, 1, 1).expand(8, 3, 4, 4)
    y = minibatch_stddev(x)
    assert y.shape == (8, 4, 4, 4)
    torch.testing.assert_close(y[0::2, 3], torch.full((4, 4, 4), 5.0**0.5))
    torch.testing.assert_close(y[1::2, 3], torch.full((4, 4, 4), 1e-4))
