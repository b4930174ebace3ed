"""What all methods keep: shapes, both kinds of delta, images of a batch by themselves, the edit by nothing."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

from training.methods import METHODS
from training.methods.protocol import CARS, encoder_view, squared

CLOSE = {"rtol": 1e-3, "atol": 1e-3}
CASES = [
    (key, cars) for key, kind in METHODS.items() for cars in (False, True) if not cars or CARS in kind.info.families
]


@pytest.mark.parametrize(("key", "cars"), CASES)
@torch.no_grad()
def test_an_edit_of_a_batch(key, cars, make, photo, tiny, tiny_cars):
    family = tiny_cars if cars else tiny
    method = make(key, family)
    images = photo(method, 2)
    inversion = method.invert(images)
    tensors = pytree.tree_leaves(tuple(inversion))
    assert all(isinstance(tensor, torch.Tensor) and tensor.shape[0] == 2 for tensor in tensors)
    delta = torch.randn(2, family.w_rows, family.style_dim) * 0.5
    edited = method.edit(inversion, delta)
    assert edited.shape == (2, 3, family.size, family.size)
    assert edited.isfinite().all()
    alone = method.edit(method.invert(images[1:]), delta[1:])
    torch.testing.assert_close(edited[1:], alone, **CLOSE)
    reconstruction = method.reconstruct(inversion)
    # The photo and the edit both matter, so a lost input would show.
    assert not torch.allclose(reconstruction[0], reconstruction[1], atol=1e-3)
    assert not torch.allclose(edited, reconstruction, atol=1e-2)


@pytest.mark.parametrize("key", [key for key in METHODS if key != "clcae"])
@torch.no_grad()
def test_a_direction_in_w_goes_to_every_row(key, make, photo, tiny):
    method = make(key)
    inversion = method.invert(photo(method))
    direction = torch.randn(1, tiny.style_dim)
    rows = direction[:, None].expand(-1, tiny.w_rows, -1)
    torch.testing.assert_close(method.edit(inversion, direction), method.edit(inversion, rows), **CLOSE)


@pytest.mark.parametrize("key", [key for key in METHODS if key not in ("sdic", "ours")])
@torch.no_grad()
def test_an_edit_by_nothing_is_the_reconstruction(key, make, photo, tiny):
    method = make(key)
    inversion = method.invert(photo(method))
    nothing = torch.zeros(1, tiny.w_rows, tiny.style_dim)
    torch.testing.assert_close(method.edit(inversion, nothing), method.reconstruct(inversion), **CLOSE)


@pytest.mark.parametrize("key", METHODS)
@torch.no_grad()
def test_the_mean_code_is_added_once(key, make, photo):
    method = make(key)
    image = photo(method)
    before = method.invert(image)
    method.latent_avg += 0.25
    after = method.invert(image)
    if key == "sdic":
        assert not torch.allclose(after.w, before.w)
        return
    torch.testing.assert_close(after.w, before.w + 0.25, rtol=1e-4, atol=1e-4)


def test_what_encoders_see_of_a_rendering(tiny_cars, tiny):
    image = torch.full((1, 3, 64, 64), 3.0)
    image[:, :, 8:56] = -0.5
    seen_image = encoder_view(image, tiny_cars)
    assert seen_image.shape == (1, 3, 96, 128)
    assert torch.equal(seen_image, torch.full((1, 3, 96, 128), -0.5))
    assert encoder_view(image, tiny).max() == 1


def test_squared_puts_a_wide_map_in_the_middle_rows():
    x = torch.ones(1, 2, 48, 64)
    y = squared(x)
    assert y.shape == (1, 2, 64, 64)
    assert torch.equal(y[:, :, 8:56], x)
    assert y.sum() == x.sum()
    assert squared(y) is y


@pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS)
def test_every_method_says_what_one_may_do_with_its_weights(kind):
    info = kind.info
    assert METHODS[info.key] is kind
    assert info.licence and info.paper and info.convention
    assert info.families[0] == "faces-1024"
