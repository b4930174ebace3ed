"""What f' adds to F moves along with what an edit moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.networks.editor import FeatureEditor
from training.networks.transport import REACH, FeatureTransport


@pytest.fixture
def transport(mobile) -> FeatureTransport:
    """One whose keys tell the channels of random features apart."""
    torch.manual_seed(0)
    module = FeatureTransport(mobile).requires_grad_(False)
    module.set_statistics(torch.randn(4, *mobile.feature_shape))
    return module


def scene(mobile, row: int, column: int) -> Tensor:
    """A 6 x 6 patch of its own pattern on an even ground, 1 x C x H x W."""
    source = torch.Generator().manual_seed(1)
    ground, patch = (torch.randn(1, mobile.feature_channels, *size, generator=source) for size in ((1, 1), (6, 6)))
    image = ground.expand(1, *mobile.feature_shape).clone()
    image[..., row : row + 6, column : column + 6] = patch
    return image


@pytest.mark.parametrize(("down", "right"), [(0, 4), (0, -4), (3, 0), (-4, 2), (4, 4)])
def test_what_lies_on_a_thing_moves_with_it(mobile, transport, down, right):
    feature, edited = scene(mobile, 13, 13), scene(mobile, 13 + down, 13 + right)
    rest, wanted = torch.zeros(2, 1, *mobile.feature_shape)
    rest[..., 14:18, 14:18] = 1.0
    wanted[..., 14 + down : 18 + down, 14 + right : 18 + right] = 1.0
    moved = transport(feature, edited, feature + rest) - feature
    assert (moved - wanted).abs().mean() < 0.05 * wanted.abs().mean()


@pytest.mark.parametrize(("down", "right"), [(0, 3), (0, -3), (2, -2)])
def test_what_reaches_further_than_the_generator_sees_moves_along(mobile, transport, down, right):
    """A rim around the patch, on the even ground, which looks the same everywhere: no outline of it stays."""
    feature, edited = scene(mobile, 13, 13), scene(mobile, 13 + down, 13 + right)
    rest, wanted = torch.zeros(2, 1, *mobile.feature_shape)
    for image, row, column in ((rest, 11, 11), (wanted, 11 + down, 11 + right)):
        image[..., row : row + 10, column : column + 10] = 1.0
    moved = transport(feature, edited, feature + rest) - feature
    # Its edges have their place, and the prior's width.
    assert (moved - wanted).abs().mean() < 0.55 * (rest - wanted).abs().mean()
    assert torch.equal(moved[..., 16 + down, :] > 0.5, wanted[..., 16 + down, :] > 0.5)
    # Attention alone, around where each place was, leaves most of the outline.
    transport.motion = lambda logits, changed: torch.zeros(1, 2, *mobile.feature_shape[1:])
    alone = transport(feature, edited, feature + rest) - feature
    assert (alone - wanted).abs().mean() > 0.7 * (rest - wanted).abs().mean()


def test_where_nothing_is_edited_the_feature_stays_to_the_bit(mobile, transport):
    feature, enhanced = torch.randn(2, 2, *mobile.feature_shape)
    assert torch.equal(transport(feature, feature, enhanced), enhanced)
    edited = feature.clone()
    edited[..., :4, :4] += 3.0
    changed = (transport(feature, edited, enhanced) - enhanced).abs().amax(dim=1)
    # Motion spreads by a Gaussian, of which nothing is left at eight deviations.
    far = 4 + round(8 * REACH * mobile.feature_resolution)
    assert changed[:, :4, :4].max() > 0 and changed[:, far:].max() == changed[:, :, far:].max() == 0


def test_photos_of_a_batch_do_not_see_each_other(mobile, transport):
    feature, edited, enhanced = torch.randn(3, 3, *mobile.feature_shape)
    together = transport(feature, edited, enhanced)
    for i in range(3):
        one = slice(i, i + 1)
        assert torch.allclose(transport(feature[one], edited[one], enhanced[one]), together[one], atol=1e-5)


def test_a_window_sees_half_its_side_around(mobile, transport):
    """The prior by its formula, for one pixel and one place."""
    prior, window = transport.prior(transport.far), transport.window
    assert prior.shape == (window**2, 4 * window**2)
    pixel, place = (2, 3), (window + 1, 5)  # the place counts from the halo's corner
    down, right = (p + transport.halo - q for p, q in zip(pixel, place, strict=True))
    found = prior[pixel[0] * window + pixel[1], place[0] * 2 * window + place[1]]
    spread = 0.1 * mobile.feature_resolution
    assert float(found) == pytest.approx(-(down**2 + right**2) / (2 * spread**2), rel=1e-5)


def test_keys_keep_what_tells_features_apart(mobile, transport):
    """With as many keys as channels, cosines of keys are those of the features in their channels' deviations."""
    torch.manual_seed(0)
    features = torch.randn(4, *mobile.feature_shape) * torch.linspace(0.1, 10, mobile.feature_channels)[:, None, None]
    transport.set_statistics(features)
    mean, deviation = features.mean(dim=(0, 2, 3), keepdim=True), features.std(dim=(0, 2, 3), keepdim=True)
    points = ((features - mean) / deviation).flatten(2)
    keys = transport.key(features).flatten(2)
    assert torch.allclose(keys.mT @ keys, points.mT @ points, atol=1e-3)


def test_an_edit_that_turns_the_head_is_linear_editing_of_what_was_moved(mobile, transport):
    torch.manual_seed(0)
    editor = FeatureEditor(mobile).requires_grad_(False)
    assert editor.transport is not None and editor.reach is not None and editor.edfm is not None
    editor.transport.load_state_dict(transport.state_dict())
    for parameter in editor.edfm.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    feature, edited, enhanced = torch.randn(3, 1, *mobile.feature_shape)
    torch.nn.init.constant_(editor.reach.turns.bias, 100.0)
    linear = editor.transport(feature, edited, enhanced) + edited - feature
    assert torch.allclose(editor(feature, edited, enhanced), linear, atol=1e-5)
    torch.nn.init.constant_(editor.reach.turns.bias, -100.0)
    assert not torch.allclose(editor(feature, edited, enhanced), linear, atol=0.1)
