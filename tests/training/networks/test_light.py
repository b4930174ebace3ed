"""The light family's encoders and editor: where they start, what they read, and that windows see what wholes see."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engines.family import FACES_1024_MOBILE, EditorArchitecture
from training.methods.paper import EditingSystem
from training.networks.build import base_encoder, e4e_encoder
from training.networks.editor import FeatureEditor
from training.networks.ftem import FeatureTensorEnhancement
from training.networks.surroundings import around_face
from training.stages.encoder import Encoder


def random_like_trained(module: torch.nn.Module) -> torch.nn.Module:
    """The module with layers that start at zero filled, as after training."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return module.eval().requires_grad_(False)


def e4e_inversion(mobile, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets, the same in every row, and a feature."""
    code = torch.randn(batch, 1, mobile.style_dim).expand(-1, mobile.w_rows, -1)
    return code, torch.randn(batch, *mobile.feature_shape)


def test_e4e_starts_at_the_mean_and_is_scaled_by_w(mobile):
    torch.manual_seed(0)
    images, codes = torch.rand(2, 3, 128, 128) * 2 - 1, 3 * torch.randn(50, mobile.style_dim)
    encoder = e4e_encoder(mobile)
    assert not encoder(images).any()
    one = random_like_trained(encoder)(images)
    assert one.shape == (2, mobile.w_rows, mobile.style_dim) and (one == one[:, :1]).all()
    encoder.set_statistics(codes)
    torch.testing.assert_close(encoder(images), one * codes.std(dim=0))


def test_e_starts_at_e4es_inversion(mobile):
    torch.manual_seed(0)
    images, inversion = torch.rand(2, 3, 128, 128) * 2 - 1, e4e_inversion(mobile)
    encoder = base_encoder(mobile)
    offsets, feature = encoder(images, *inversion)
    assert torch.equal(offsets, inversion[0]) and torch.equal(feature, inversion[1])
    offsets, feature = random_like_trained(encoder)(images, *inversion)
    moved = (offsets != inversion[0]).any(dim=(0, 2))
    assert not moved[: mobile.feature_conv].any() and moved[mobile.feature_conv :].all()
    assert (feature != inversion[1]).any()


def test_a_window_of_a_photo_has_the_whole_photos_feature_away_from_its_edges(mobile):
    encoder = random_like_trained(Encoder(mobile))
    image, (code, prior) = torch.rand(1, 3, 128, 128) * 2 - 1, e4e_inversion(mobile, 1)
    w, whole = encoder(image, torch.zeros(mobile.style_dim), code, prior)
    window = encoder.encoder.feature(image[:, :, 8:56, 12:60], prior[:, :, 2:14, 3:15])
    window = encoder.ftem(window, w)
    # One block of two convolutions in E0 and one in the FTEM reach four cells.
    torch.testing.assert_close(window[:, :, 4:-4, 4:-4], whole[:, :, 6:10, 7:11], rtol=1e-4, atol=1e-5)


def test_features_take_the_generators_mean_and_deviation(mobile):
    encoder = base_encoder(mobile)
    features = 5 + 2 * torch.randn(6, *mobile.feature_shape)
    encoder.set_statistics(features, torch.randn(9, mobile.style_dim))
    torch.testing.assert_close(encoder.mean.flatten(), features.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(encoder.deviation.flatten(), features.std(dim=(0, 2, 3)))


def test_ftem_starts_as_the_identity_and_reads_the_rows_below_the_feature(mobile):
    feature, w = torch.randn(2, *mobile.feature_shape), torch.randn(2, mobile.w_rows, mobile.style_dim)
    module = FeatureTensorEnhancement(mobile)
    assert torch.equal(module(feature, w), feature)
    random_like_trained(module)
    still = module(feature, w)
    other = w.clone()
    other[:, mobile.feature_rows :] += 1
    assert torch.equal(module(feature, other), still)
    other[:, mobile.feature_rows - 1] += 1
    assert not torch.equal(module(feature, other), still)


def test_the_light_editor_starts_near_linear_editing(mobile):
    """Attention starts nearly even, so the gate of eq. 3.7 starts at little more than a half, and m makes up for it."""
    torch.manual_seed(0)
    options = dataclasses.replace(mobile.editor, surroundings=False, transport=False)
    editor = FeatureEditor(dataclasses.replace(mobile, editor=options)).requires_grad_(False)
    feature, edited, enhanced = (torch.randn(2, *mobile.feature_shape) for _ in range(3))
    changed = editor(feature, edited, enhanced)
    linear = edited - feature
    share = (changed - enhanced) / linear
    assert 1.0 < share.min() and share.max() < 1.1
    assert torch.equal(editor(feature, feature, enhanced), enhanced)


def test_what_turns_the_head_is_told_from_known_edits(mobile):
    """Those that turn it change two channels around the face, the others two within, among noise."""
    torch.manual_seed(0)
    reach = FeatureEditor(mobile).reach
    assert reach is not None
    turns = (torch.arange(300) % 4 == 0).float()
    difference = torch.randn(300, *mobile.feature_shape)
    outside = around_face(mobile.feature_resolution)[0] == 0
    difference[turns == 1, :2] *= torch.where(outside, 3.0, 1.0)
    difference[turns == 0, 2:4] *= torch.where(outside, 1.0, 3.0)
    strengths = reach.strengths(difference * torch.rand(300, 1, 1, 1))
    reach.fit(strengths[:200], turns[:200])
    with torch.no_grad():
        logits = reach.turns(strengths)[:, 0]
    assert ((logits > 0).float() == turns).all() and logits[200:].abs().min() > 2
    # Edits of one kind alone.
    for kind in (0.0, 1.0):
        reach.fit(strengths[:4], torch.full((4,), kind))
        assert ((reach.logit(difference) > 9) == bool(kind)).all() and reach.logit(difference).abs().min() > 9


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_an_edit_that_does_not_turn_the_head_leaves_its_surroundings_alone(mobile, scale):
    torch.manual_seed(0)
    editor = random_like_trained(FeatureEditor(mobile))
    assert editor.reach is not None
    feature, enhanced, difference = (torch.randn(1, *mobile.feature_shape) for _ in range(3))
    difference = scale * difference
    away = around_face(mobile.feature_resolution) == 0
    assert 0 < away.float().mean() < 1
    torch.nn.init.constant_(editor.reach.turns.bias, -100.0)
    changed = (editor(feature, feature + difference, enhanced) - enhanced).abs().amax(dim=1, keepdim=True)
    assert changed[away].max() == 0 and changed[~away].max() > 0
    torch.nn.init.constant_(editor.reach.turns.bias, 100.0)
    turned = torch.randn_like(enhanced)
    assert torch.allclose(editor.reach(difference, enhanced, enhanced, turned), turned, atol=1e-6)
    # What is told from the difference is not the edit's strength.
    torch.nn.init.normal_(editor.reach.turns.weight)
    assert torch.allclose(editor.reach.logit(difference), editor.reach.logit(2 * difference), atol=1e-3)


def test_without_linear_start_the_narrow_editor_starts_as_the_identity(mobile):
    options = dataclasses.replace(mobile.editor, linear_start=False, transport=False)
    editor = FeatureEditor(dataclasses.replace(mobile, editor=options))
    feature, edited, enhanced = (torch.randn(1, *mobile.feature_shape) for _ in range(3))
    assert torch.equal(editor(feature, edited, enhanced), enhanced)


def test_every_parameter_of_a_light_system_learns(mobile):
    torch.manual_seed(0)
    system = random_like_trained(EditingSystem(mobile)).requires_grad_(True)
    inversion = system.invert(torch.rand(2, 3, 128, 128) * 2 - 1)
    image = system.edit(inversion, 0.1 * torch.randn(2, mobile.w_rows, mobile.style_dim))
    assert image.shape == (2, 3, 256, 256)
    image.square().mean().backward()
    silent = [name for name, p in system.named_parameters() if p.grad is None or not p.grad.any()]
    # The mapping network turns z into w, which no inversion does, and heads of rows beyond the generator's last.
    spare = {f"encoder.styles.{mobile.w_rows - mobile.feature_conv - 1 - i}." for i in range(2)}
    assert {n for n in silent if not n.startswith(("generator.style.", *spare))} == set()


def test_the_shipped_familys_own_weights_are_small():
    with torch.device("meta"):
        system = EditingSystem(FACES_1024_MOBILE)
    own = sum(p.numel() for name, p in system.named_parameters() if not name.startswith("generator."))
    own += sum(b.numel() for name, b in system.named_buffers() if not name.startswith("generator."))
    assert 2 * own <= 24e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_width": -1}, "must not be negative"),
        ({"inner_width": 12}, "does not divide into 8 heads"),
        ({"linear_start": True}, "needs an inner_width"),
        ({"linear_start": True, "inner_width": 16, "spade": False}, "needs an inner_width, edem and spade"),
        ({"surroundings": True}, "surroundings needs an inner_width"),
        ({"transport": True}, "transport needs an inner_width"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        EditorArchitecture(**options)
