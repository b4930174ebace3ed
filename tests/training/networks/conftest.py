"""Fixtures of the network tests: a family small enough that every network runs in milliseconds."""

from __future__ import annotations

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
