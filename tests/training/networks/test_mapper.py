from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.networks.mapper import LEVELS, LatentMapper, mapper_delta


def by_hand(mapper: LatentMapper, code: np.ndarray, level: str) -> np.ndarray:
    """One level in float64 from the published formulas: norm over the level's rows, then four equalised layers."""
    first, end = LEVELS[level]
    x = torch.from_numpy(code[first:end]).double()
    x = x / (x.square().mean(dim=0, keepdim=True) + 1e-8).sqrt()
    width = x.shape[-1]
    for layer in mapper.levels[level][1:]:
        weight, bias = layer.weight.double(), layer.bias.double()
        x = F.leaky_relu(x @ (weight * 0.01 / width**0.5).T + bias * 0.01, 0.2) * 2**0.5
    return x.detach().numpy()


def make(levels: tuple[str, ...] = tuple(LEVELS), width: int = 512) -> LatentMapper:
    torch.manual_seed(0)
    mapper = LatentMapper(width, levels)
    for parameter in mapper.parameters():
        torch.nn.init.normal_(parameter, std=float(parameter.detach().std().nan_to_num(0) or 10))
    return mapper


def test_parameters_of_the_published_mapper() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in LatentMapper().parameters()) == 3 * 4 * (512 * 512 + 512)


def test_the_delta_equals_the_formulas_on_real_codes(shared: Path) -> None:
    codes = np.load(shared / "directions" / "styleclip_e4e_w_plus.npy")[:4]
    mapper = make()
    for code in codes:
        delta = mapper_delta(mapper, code)
        expected = 0.1 * np.concatenate([by_hand(mapper, code, level) for level in LEVELS])
        assert delta.shape == (18, 512) and delta.dtype == np.float32
        np.testing.assert_allclose(delta, expected, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(mapper_delta(mapper, code, 0.2), 2 * delta, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("levels", [("coarse", "medium"), ("fine",), ("medium",)])
def test_a_level_that_is_absent_leaves_its_rows_alone(levels: tuple[str, ...]) -> None:
    code = np.random.default_rng(0).normal(size=(12, 16)).astype(np.float32)
    mapper = make(levels, 16)
    delta = mapper_delta(mapper, code)
    for level, (first, end) in LEVELS.items():
        assert delta[first:end].any() == (level in levels)
    assert set(mapper.levels) == set(levels)


@pytest.mark.parametrize("levels", [(), ("fine", "finest")])
def test_levels_that_cannot_be(levels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="some of the levels coarse, medium, fine"):
        LatentMapper(8, levels)
