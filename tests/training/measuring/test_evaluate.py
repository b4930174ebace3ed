from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio

from engines.contracts import style_width
from engines.directions import Direction, resolve
from engines.errors import StrengthWarning
from training.measuring import evaluate
from training.measuring.evaluate import Evaluator, linear_edit, photo_range, psnr, quantise


@pytest.fixture
def direction(family) -> Direction:
    vector = np.random.default_rng(5).normal(0, 0.3, family.style_dim)
    return Direction(
        name="smile",
        kind="interfacegan",
        space="w",
        vector=vector.astype(np.float32),
        min_strength=-1.0,
        max_strength=2.0,
        description="",
        source="test",
        licence="Apache-2.0",
    )


@pytest.fixture
def evaluator(system, splits, lpips, identity, judges) -> Evaluator:
    return Evaluator(system, splits[1], lpips, identity, judges, batch=2)


def test_psnr_against_numpy():
    source = np.random.default_rng(0)
    first, second = source.uniform(-1, 1, (2, 4, 3, 8, 8))
    values = psnr(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    mse = ((first - second) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(values, 20 * np.log10(2.0) - 10 * np.log10(mse), rtol=1e-9)
    for one, other, value in zip(first, second, values, strict=True):
        assert value == pytest.approx(peak_signal_noise_ratio(one, other, data_range=2.0))


def test_psnr_of_equal_images_is_finite():
    image = torch.rand(2, 3, 4, 4)
    assert torch.isfinite(psnr(image, image)).all()
    assert psnr(image, image).min() > 100


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=30))
def test_quantise_is_eight_bit_rounding(values):
    image = torch.tensor(values)
    expected = np.round((np.clip(np.float32(values), -1, 1) + np.float32(1)) * np.float32(127.5))
    levels = (quantise(image) + 1) * 127.5
    np.testing.assert_allclose(levels.numpy(), expected, atol=1e-3)
    torch.testing.assert_close(quantise(quantise(image)), quantise(image), rtol=0, atol=1e-6)


def test_quantise_keeps_photos(faces):
    photos = faces.tensor(slice(0, 4))
    torch.testing.assert_close(quantise(photos), photos, rtol=0, atol=1e-6)


def test_linear_edit(system, faces, family):
    torch.manual_seed(0)
    photos, delta = faces.tensor(slice(0, 2)), 0.3 * torch.randn(2, family.w_rows, family.style_dim)
    inversion = system.invert(photos)
    difference = system.features(inversion.w_e + delta) - system.features(inversion.w_e)
    expected = system.generator.upper(inversion.feature + difference, inversion.w + delta)
    torch.testing.assert_close(linear_edit(system, inversion, delta), expected, rtol=1e-3, atol=1e-4)
    still = linear_edit(system, inversion, torch.zeros_like(delta))
    torch.testing.assert_close(still, system.reconstruct(inversion), rtol=1e-3, atol=1e-4)


def test_reconstruction(evaluator, system, splits, lpips, identity):
    result = evaluator.reconstruction()
    assert set(result) == {"ours", "e4e_w_plus"}
    photos = splits[1].tensor(slice(0, 3))
    with torch.no_grad():
        inversion = system.invert(photos)
        for name, image in (
            ("ours", system.reconstruct(inversion)),
            ("e4e_w_plus", system.generator(inversion.w_e)),
        ):
            image = quantise(image)
            expected = {
                "psnr": psnr(image, photos).mean(),
                "lpips": lpips(image, photos).mean(),
                "identity": (identity(image) * identity(photos)).sum(dim=1).mean(),
            }
            assert result[name] == pytest.approx({k: float(v) for k, v in expected.items()}, rel=1e-3)


def test_edit(evaluator, system, splits, direction, judges, identity):
    result = evaluator.edit(direction, 1.5, "smile")
    assert list(result) == ["ours", "linear"]
    photos = splits[1].tensor(slice(0, 3))
    delta = torch.from_numpy(resolve({"smile": direction}, {"smile": 1.5}, system.family).delta_w).expand(3, -1, -1)
    before = judges.score(photos, ("smile",))["smile"]
    with torch.no_grad():
        inversion = system.invert(photos)
        for name, image in (
            ("ours", system.edit(inversion, delta)),
            ("linear", linear_edit(system, inversion, delta)),
        ):
            image = quantise(image)
            change = judges.score(image, ("smile",))["smile"] - before
            kept = (identity(image) * identity(photos)).sum(dim=1).mean()
            assert result[name]["change"] == pytest.approx(change.mean(), rel=1e-2, abs=1e-4)
            assert result[name]["identity"] == pytest.approx(kept.item(), rel=1e-3)
            room = before < 0.5
            assert result[name].get("faces_with_room", 0) == room.sum()
            if room.any():
                assert result[name]["change_with_room"] == pytest.approx(change[room].mean(), rel=1e-2, abs=1e-4)


def test_room_is_measured_in_the_asked_direction(evaluator, direction):
    up, down = evaluator.edit(direction, 1.0, "smile")["ours"], evaluator.edit(direction, -1.0, "smile")["ours"]
    assert up.get("faces_with_room", 0) + down.get("faces_with_room", 0) == 3
    assert "faces_with_room" not in evaluator.edit(direction, 1.0, "age")["ours"]


def test_photo_range(system, faces, identity, direction):
    photos = faces.tensor(slice(0, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", StrengthWarning)
        ranges = [
            photo_range(system, photos, identity, direction, limit=2.0, floor=floor, step=0.25)
            for floor in (-1.1, 0.3, 0.6, 0.8, 0.9, 0.97, 1.1)
        ]
    assert ranges[0] == (-2.0, 2.0)  # beyond the range that the direction has, and no warning
    assert ranges[-1] == (-0.25, 0.25)
    assert [low for low, _ in ranges] == sorted(low for low, _ in ranges)
    assert [high for _, high in ranges] == sorted((high for _, high in ranges), reverse=True)


def test_photo_range_ends_at_a_step_within_the_limit(system, faces, identity, direction):
    photos = faces.tensor(slice(0, 2))
    low, high = photo_range(system, photos, identity, direction, limit=2.0, floor=-1.1, step=0.4)
    assert (low, high) == (pytest.approx(-2.0), pytest.approx(2.0))
    low, high = photo_range(system, photos, identity, direction, limit=2.0, floor=-1.1, step=0.75)
    assert (low, high) == (-1.5, 1.5)


def test_photo_range_of_a_direction_in_style_space(system, faces, identity, family, monkeypatch):
    """It moves no code: the styles it moves must reach the picture."""
    vector = np.random.default_rng(6).normal(0, 0.3, style_width(family)).astype(np.float32)
    direction = Direction(
        name="hair",
        kind="stylespace",
        space="s",
        vector=vector,
        min_strength=-1.0,
        max_strength=1.0,
        description="",
        source="test",
        licence="Apache-2.0",
    )
    seen, edit = [], system.edit

    def record(inversion, delta_w, style_delta):
        seen.append((delta_w.abs().max().item(), style_delta[0].numpy()))
        return edit(inversion, delta_w, style_delta)

    monkeypatch.setattr(system, "edit", record)
    photos = faces.tensor(slice(0, 2))
    assert photo_range(system, photos, identity, direction, limit=1.0, floor=-1.1, step=0.25) == (-1.0, 1.0)
    assert [moved for moved, _ in seen] == [0.0] * 4
    for strength, (_, style) in zip((-0.75, -1.0, 0.75, 1.0), seen, strict=True):
        np.testing.assert_allclose(style, strength * vector, rtol=1e-6)


def test_photos_are_edited_a_few_at_a_time(system, faces, identity, direction, monkeypatch):
    photos, sizes = faces.tensor(slice(0, 5)), []
    whole = photo_range(system, photos, identity, direction, limit=2.0, floor=0.8, step=0.25)
    monkeypatch.setattr(evaluate, "at_once", lambda family: 2)
    invert = system.invert
    monkeypatch.setattr(system, "invert", lambda image: sizes.append(len(image)) or invert(image))
    assert photo_range(system, photos, identity, direction, limit=2.0, floor=0.8, step=0.25) == whole
    assert sizes == [2, 2, 1]
