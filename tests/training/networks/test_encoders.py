from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from engines.family import CARS_512, DEMO_64, DEMO_128, FACES_1024
from training.networks.e4e import E4EEncoder
from training.networks.feature_style import POOL, FeatureStyleEncoder, GridPool, strides
from training.networks.ir import ArcFaceUnit, IRUnit


def batch_norm(state: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    parts = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts)


def with_statistics(module: torch.nn.Module) -> torch.nn.Module:
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    return module.eval()


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
def test_ir_se_unit_by_its_definition(stride, randomise):
    torch.manual_seed(0)
    unit = with_statistics(randomise(IRUnit(32, 32, stride, squeeze=True)))
    s, x = unit.state_dict(), torch.randn(2, 32, 8, 8)
    y = F.conv2d(batch_norm(s, "res_layer.0", x), s["res_layer.1.weight"], padding=1)
    y = F.prelu(y, s["res_layer.2.weight"])
    y = batch_norm(s, "res_layer.4", F.conv2d(y, s["res_layer.3.weight"], stride=stride, padding=1))
    gate = F.conv2d(F.adaptive_avg_pool2d(y, 1), s["res_layer.5.fc1.weight"]).relu()
    gate = F.conv2d(gate, s["res_layer.5.fc2.weight"]).sigmoid()
    assert s["res_layer.5.fc1.weight"].shape == (2, 32, 1, 1)
    assert not any(name.startswith("shortcut_layer") for name in s)
    torch.testing.assert_close(unit(x), y * gate + x[:, :, ::stride, ::stride])


@torch.no_grad()
@pytest.mark.parametrize(("inner", "stride"), [(6, 2), (6, 1), (4, 2)])
def test_arcface_unit_by_its_definition(inner, stride, randomise):
    torch.manual_seed(0)
    unit = with_statistics(randomise(ArcFaceUnit(4, inner, stride)))
    s, x = unit.state_dict(), torch.randn(2, 4, 8, 8)
    y = batch_norm(s, "bn2", F.conv2d(batch_norm(s, "bn1", x), s["conv1.weight"], padding=1))
    y = F.conv2d(F.prelu(y, s["prelu.weight"]), s["conv2.weight"], stride=stride, padding=1)
    shortcut = batch_norm(s, "downsample.1", F.conv2d(x, s["downsample.0.weight"], stride=stride))
    torch.testing.assert_close(unit(x), batch_norm(s, "bn3", y) + shortcut)


def test_units_without_a_change_have_a_plain_shortcut():
    assert ArcFaceUnit(4, 4, 1).downsample is None
    assert isinstance(IRUnit(4, 4, 1).shortcut_layer, torch.nn.Identity)
    assert "shortcut_layer.0.weight" in IRUnit(4, 8, 1).state_dict()


@pytest.mark.parametrize(
    ("family", "halvings"),
    [(FACES_1024, (4, 5, 6)), (CARS_512, (4, 5, 6)), (DEMO_64, (2, 3, 4)), (DEMO_128, (3, 4, 5))],
)
def test_e4e_heads_end_at_one_pixel(family, halvings):
    height, width = family.encoder_size
    with torch.device("meta"):
        heads = E4EEncoder(family).styles
    assert len(heads) == family.w_rows
    for i, head in enumerate(heads):
        level = 0 if i < 3 else 1 if i < 7 else 2
        divisor = (16, 8, 4)[level]
        x = torch.empty(1, family.head_width, height // divisor, width // divisor, device="meta")
        assert len(head.convs) == 2 * halvings[level]
        assert head.convs(x).shape == (1, family.head_width, 1, 1)


def test_e4e_public_checkpoint_names():
    with torch.device("meta"):
        state = E4EEncoder(FACES_1024).state_dict()
    shapes = {
        "input_layer.0.weight": (64, 3, 3, 3),
        "input_layer.2.weight": (64,),
        "body.3.res_layer.1.weight": (128, 64, 3, 3),
        "body.3.res_layer.5.fc1.weight": (8, 128, 1, 1),
        "body.21.shortcut_layer.1.running_var": (512,),
        "styles.17.convs.10.weight": (512, 512, 3, 3),
        "styles.0.linear.weight": (512, 512),
        "latlayer1.weight": (512, 256, 1, 1),
        "latlayer2.bias": (512,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    shortcuts = {int(name.split(".")[1]) for name in state if "shortcut_layer" in name}
    assert shortcuts == {3, 7, 21}
    assert not any(name.startswith("toplayer") for name in state)


@torch.no_grad()
def test_e4e_first_row_carries_all_others(tiny, randomise):
    encoder = with_statistics(randomise(E4EEncoder(tiny)))
    image = torch.randn(2, 3, *tiny.encoder_size)
    before = encoder(image)
    assert before.shape == (2, tiny.w_rows, tiny.style_dim)
    encoder.styles[0].linear.bias += 1.0
    torch.testing.assert_close(encoder(image), before + 1.0, rtol=1e-4, atol=1e-4)
    encoder.styles[5].linear.bias += 1.0
    expected = before + 1.0
    expected[:, 5] += 1.0
    torch.testing.assert_close(encoder(image), expected, rtol=1e-4, atol=1e-4)
    for head in encoder.styles[1:]:
        head.linear.weight.zero_()
        head.linear.bias.zero_()
    rows = encoder(image)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))


@torch.no_grad()
def test_e4e_pyramid_aligns_corners(tiny, randomise):
    encoder = with_statistics(randomise(E4EEncoder(tiny)))
    for lateral in (encoder.latlayer1, encoder.latlayer2):
        lateral.weight.zero_()
        lateral.bias.zero_()
    coarse, middle, fine = encoder.pyramid(torch.randn(1, 3, *tiny.encoder_size))
    assert [m.shape[2] for m in (coarse, middle, fine)] == [4, 8, 16]
    # Corner alignment puts output pixel i of m at position i (n - 1) / (m - 1) of n: the ends fall on the ends.
    for below, above in ((coarse, middle), (middle, fine)):
        n, m = below.shape[2], above.shape[2]
        position = torch.arange(m)[:, None] * (n - 1) / (m - 1)
        matrix = (1 - (position - torch.arange(n)).abs()).clamp(min=0)
        torch.testing.assert_close(above, matrix @ below @ matrix.T, rtol=1e-4, atol=1e-4)


def test_strides_follow_the_feature_resolution():
    assert strides(FACES_1024) == strides(CARS_512) == strides(DEMO_64) == strides(DEMO_128) == (1, 1)
    assert strides(dataclasses.replace(FACES_1024, feature_resolution=32)) == (2, 1)
    assert strides(dataclasses.replace(FACES_1024, feature_resolution=16)) == (2, 2)


@pytest.mark.parametrize("resolution", [128, 8])
def test_feature_out_of_the_encoders_reach_is_refused(resolution):
    family = dataclasses.replace(FACES_1024, name="odd", feature_resolution=resolution)
    with pytest.raises(ValueError, match="family odd: an encoder input of 256 pixels must be 4, 8 or 16 times"):
        FeatureStyleEncoder(family)


@pytest.mark.parametrize("resolution", [64, 32, 16])
def test_feature_comes_out_at_its_resolution_before_any_resize(resolution):
    family = dataclasses.replace(FACES_1024, feature_resolution=resolution)
    with torch.device("meta"):
        encoder = FeatureStyleEncoder(family).eval()
        x = encoder.block_3(encoder.block_2(encoder.block_1(encoder.conv(torch.empty(1, 3, 256, 256)))))
        assert encoder.content_layer(x).shape == (1, 512, resolution, resolution)


def test_feature_style_public_checkpoint_names():
    with torch.device("meta"):
        state = FeatureStyleEncoder(FACES_1024).state_dict()
    shapes = {
        "conv.0.weight": (64, 3, 3, 3),
        "block_1.0.downsample.0.weight": (64, 64, 1, 1),
        "block_3.13.prelu.weight": (256,),
        "block_4.2.bn3.running_mean": (512,),
        "content_layer.4.weight": (512, 512, 3, 3),
        "content_layer.3.weight": (512,),
        "styles.17.weight": (512, 8640),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert {name.split(".")[0] for name in state} == {
        "conv", "block_1", "block_2", "block_3", "block_4", "content_layer", "styles",
    }  # fmt: skip


@torch.no_grad()
def test_rows_have_heads_of_their_own_and_the_feature_does_not_see_the_fourth_stage(tiny, randomise):
    encoder = with_statistics(randomise(FeatureStyleEncoder(tiny)))
    image = torch.randn(2, 3, *tiny.encoder_size)
    offsets, feature = encoder(image)
    encoder.styles[2].bias += 1.0
    encoder.block_4[0].bn3.bias += 1.0
    offsets_2, feature_2 = encoder(image)
    assert torch.equal(feature, feature_2)
    assert not torch.allclose(offsets[:, 0], offsets_2[:, 0])
    encoder.block_4[0].bn3.bias -= 1.0
    expected = offsets.clone()
    expected[:, 2] += 1.0
    torch.testing.assert_close(encoder(image)[0], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_oblong_input_is_padded_to_the_square_feature(tiny, randomise):
    family = dataclasses.replace(tiny, encoder_size=(48, 64))
    encoder = with_statistics(randomise(FeatureStyleEncoder(family)))
    image = torch.randn(1, 3, 48, 64)
    feature = encoder(image)[1]
    content = encoder.content_layer(encoder.block_3(encoder.block_2(encoder.block_1(encoder.conv(image)))))
    assert content.shape == (1, 24, 12, 16)
    assert torch.equal(feature[:, :, 2:14], content)
    assert not feature[:, :, :2].any() and not feature[:, :, 14:].any()


@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_grid_pool_is_adaptive_average_pooling(height, width):
    x = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(GridPool(height, width)(x), F.adaptive_avg_pool2d(x, POOL), rtol=1e-5, atol=1e-6)
