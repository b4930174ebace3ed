from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from engines.directions import Direction
from training.measuring.sheet import CELL, LABEL, direction_sheet
from training.networks.build import generator as build
from training.networks.latents import mean_w


def direction(family, name: str, low: float, high: float) -> Direction:
    vector = np.random.default_rng(5).normal(0, 1, family.style_dim).astype(np.float32)
    about = {"description": "", "source": "test", "licence": "Apache-2.0"}
    return Direction(
        name=name, kind="interfacegan", space="w", vector=vector, min_strength=low, max_strength=high, **about
    )


@pytest.mark.parametrize("kind", ["family", "mobile"])
def test_a_row_shows_the_sample_between_both_ends_of_its_range(kind, request):
    family = request.getfixturevalue(kind)
    torch.manual_seed(0)
    generator = build(family).eval().requires_grad_(False)
    mean = mean_w(generator)
    both, one = direction(family, "smile", -2.0, 2.0), direction(family, "age", 1.0, 3.0)
    sheet = np.asarray(direction_sheet(generator, mean, [both, one]))
    assert sheet.shape == (2 * (CELL + LABEL), 5 * CELL, 3)
    cells = [[sheet[y : y + CELL, x * CELL : (x + 1) * CELL] for x in range(5)] for y in (0, CELL + LABEL)]
    for row in cells:
        assert any((row[2] != row[x]).any() for x in (3, 4))
    assert (cells[0][0] != cells[0][2]).any()
    # A range above zero has no lower end: the sample stands there.
    assert (cells[1][0] == cells[1][2]).all()
    again = np.asarray(direction_sheet(generator, mean, [both, dataclasses.replace(one, name="other")]))
    assert (again[:CELL] == sheet[:CELL]).all()
