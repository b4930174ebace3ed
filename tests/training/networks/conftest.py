"""Fixtures of the network tests: a family small enough that every network runs in milliseconds."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engines.family import EditorArchitecture, ModelFamily

TINY = ModelFamily(
    name="tiny",
    size=32,
    style_dim=12,
    mapping_layers=2,
    channel_base=512,
    channel_max=24,
    feature_resolution=16,
    encoder_size=(64, 64),
    encoder_width=4,
    head_width=20,
    editor=EditorArchitecture(window=8, heads=4, ftem_blocks=2, edem_mlp_ratio=2, edfm_blocks=2),
)


@pytest.fixture
def tiny() -> ModelFamily:
    torch.manual_seed(0)
    return TINY


@pytest.fixture
def with_options():
    """tiny with some editor options replaced."""
    torch.manual_seed(0)
    return lambda **options: dataclasses.replace(TINY, editor=dataclasses.replace(TINY.editor, **options))


@pytest.fixture
def randomise():
    """Gives every parameter of a module random values, so that no branch is switched off by its initialisation."""

    def apply(module: torch.nn.Module, std: float = 0.2) -> torch.nn.Module:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(0, std)
        return module.eval()

    return apply
