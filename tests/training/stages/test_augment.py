from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.stages.augment import POLICIES, color, cutout, diff_augment, translation


def _shifted(image: torch.Tensor, down: int, right: int, reach: int) -> torch.Tensor:
    height, width = image.shape[1:]
    padded = F.pad(image, (reach,) * 4)
    return padded[:, reach - down : reach - down + height, reach - right : reach - right + width]


def test_translation_shifts_by_up_to_an_eighth():
    torch.manual_seed(0)
    image = torch.rand(3, 16, 16) + 0.1
    outputs = translation(image.expand(200, -1, -1, -1))
    shifts = {(y, x): _shifted(image, y, x, 2) for y in range(-2, 3) for x in range(-2, 3)}
    found = {shift for shift, expected in shifts.items() for out in outputs if torch.equal(out, expected)}
    assert found == set(shifts)
    assert all(any(torch.equal(out, expected) for expected in shifts.values()) for out in outputs)


def test_translation_draws_per_image():
    torch.manual_seed(0)
    outputs = translation(torch.rand(1, 3, 32, 32).expand(16, -1, -1, -1))
    assert len({out.numpy().tobytes() for out in outputs}) > 8


def test_cutout_zeroes_a_square_of_half_the_side():
    torch.manual_seed(0)
    outputs = cutout(torch.ones(64, 3, 16, 16))
    holes = outputs == 0
    assert (holes == holes[:, :1]).all()
    sides = holes[:, 0].any(dim=2).sum(dim=1), holes[:, 0].any(dim=1).sum(dim=1)
    assert torch.equal(holes[:, 0].sum(dim=(1, 2)), sides[0] * sides[1])
    for side in sides:
        assert side.max() == 8 and side.min() >= 4


def test_color_keeps_contrast_linear():
    torch.manual_seed(0)
    image = torch.rand(4, 3, 8, 8) * 2 - 1
    output = color(image)
    assert output.shape == image.shape
    # Each step scales deviations from a mean: differences of two pixels of equal saturation keep their ratio.
    grey, grey_out = image.mean(dim=1), output.mean(dim=1)
    centred, centred_out = (x - x.mean(dim=(1, 2), keepdim=True) for x in (grey, grey_out))
    factor = (centred * centred_out).sum(dim=(1, 2)) / centred.square().sum(dim=(1, 2))
    torch.testing.assert_close(centred_out, factor[:, None, None] * centred, rtol=1e-4, atol=1e-5)
    assert ((factor >= 0.5) & (factor <= 1.5)).all()


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_gradient_flows(name):
    torch.manual_seed(1)
    image = torch.rand(4, 3, 16, 16, requires_grad=True)
    output = diff_augment(image, (name,))
    assert output.shape == image.shape
    (gradient,) = torch.autograd.grad(output.square().sum(), image)
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).float().mean() > 0.4


def test_names_apply_in_order():
    image = torch.rand(2, 3, 16, 16)
    torch.manual_seed(2)
    expected = cutout(translation(image))
    torch.manual_seed(2)
    assert torch.equal(diff_augment(image, ("translation", "cutout")), expected)
    assert diff_augment(image, ()) is image


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown augmentation 'rotate'; there are color, translation, cutout"):
        diff_augment(torch.zeros(1, 3, 8, 8), ("color", "rotate"))
