from __future__ import annotations

import pytest
import torch

from training.losses.image import ImageLoss, ImageWeights


@pytest.fixture
def pair(faces):
    return faces.tensor(slice(0, 4)), faces.tensor(slice(4, 8))


def test_terms(loss_files, pair, lpips, identity):
    weights = ImageWeights(l2=2.0, lpips=0.5, identity=0.25)
    total, terms = ImageLoss(loss_files, weights)(*pair)
    output, target = pair
    expected = {
        "l2": (output - target).square().mean(),
        "lpips": lpips(output, target).mean(),
        "identity": (1 - (identity(output) * identity(target)).sum(dim=1)).mean(),
    }
    assert set(terms) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    torch.testing.assert_close(total, 2 * expected["l2"] + 0.5 * expected["lpips"] + 0.25 * expected["identity"])


def test_the_papers_weights():
    weights = ImageWeights()
    assert (weights.l2, weights.lpips, weights.identity, weights.identity_images) == (1.0, 0.8, 0.1, 0)


def test_root_of_each_images_mean_square(loss_files, pair):
    output, target = pair
    weights = ImageWeights(l2=1.0, lpips=0.0, identity=0.0, l2_root=True)
    total, terms = ImageLoss(loss_files, weights)(output, target)
    expected = (output - target).square().mean(dim=(1, 2, 3)).sqrt().mean()
    torch.testing.assert_close(terms["l2"], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_the_root_is_finite_at_zero(loss_files, pair):
    output = pair[0].clone().requires_grad_(True)
    total, _ = ImageLoss(loss_files, ImageWeights(l2_root=True))(output, pair[0])
    total.backward()
    assert torch.isfinite(output.grad).all()


def test_equal_images_cost_nothing(loss_files, pair):
    total, terms = ImageLoss(loss_files, ImageWeights())(pair[0], pair[0].clone())
    assert terms["l2"] == 0 and terms["lpips"] == 0
    assert abs(total.item()) < 1e-6


@pytest.mark.parametrize("count", [1, 3, 9])
def test_identity_of_the_first_images_only(loss_files, pair, identity, count):
    output, target = pair
    _, terms = ImageLoss(loss_files, ImageWeights(identity_images=count))(output, target)
    expected = 1 - (identity(output[:count]) * identity(target[:count])).sum(dim=1).mean()
    torch.testing.assert_close(terms["identity"], expected)


def test_gradient_reaches_the_output_alone(loss_files, pair):
    loss = ImageLoss(loss_files, ImageWeights())
    output = pair[0].requires_grad_(True)
    total, terms = loss(output, pair[1])
    total.backward()
    assert torch.isfinite(output.grad).all() and (output.grad != 0).float().mean() > 0.9
    assert not any(term.requires_grad for term in terms.values())
    assert not list(loss.parameters()) and not loss.training


def test_the_face_counts_once_more(loss_files, pair):
    """Only what happens on eyes, nose and mouth changes the face term."""
    output = pair[0]
    weights = ImageWeights(l2=1.0, lpips=0.0, identity=0.0, face=2.0)
    loss = ImageLoss(loss_files, weights)
    side = output.shape[-1]
    inside, outside = output.clone(), output.clone()
    inside[:, :, int(0.5 * side) : int(0.7 * side), int(0.4 * side) : int(0.6 * side)] += 0.5
    outside[:, :, : int(0.3 * side)] += 0.5
    total, terms = loss(inside, output)
    assert terms["face"] > terms["l2"] > 0
    torch.testing.assert_close(total, terms["l2"] + 2.0 * terms["face"])
    assert loss(outside, output)[1]["face"] < 1e-6
