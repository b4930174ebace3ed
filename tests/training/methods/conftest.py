"""Fixtures of the methods' tests: a family in which every method fits and runs in a moment."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from engines.family import EditorArchitecture, ModelFamily
from training.methods import create
from training.methods.protocol import Method

TINY = ModelFamily(
    name="tiny",
    size=64,
    style_dim=16,
    mapping_layers=2,
    channel_base=512,
    channel_max=16,
    feature_resolution=32,
    encoder_size=(128, 128),
    encoder_width=4,
    head_width=16,
    editor=EditorArchitecture(window=8, heads=4, ftem_blocks=1, edem_layers=1, edem_mlp_ratio=2, edfm_blocks=1),
)
TINY_CARS = dataclasses.replace(TINY, name="tiny-cars", visible_rows=(8, 56), encoder_size=(96, 128))


@pytest.fixture
def tiny() -> ModelFamily:
    return TINY


@pytest.fixture
def tiny_cars() -> ModelFamily:
    return TINY_CARS


def liven(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random biases, slopes, norms and buffers in evaluation mode, so that a wrong order or a left-out part shows."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() <= 1 or name.endswith("bias"):
                parameter.add_(torch.randn(parameter.shape, generator=source) * 0.2)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                part.running_mean.copy_(torch.randn(part.num_features, generator=source) * 0.3)
                part.running_var.copy_(torch.rand(part.num_features, generator=source) + 0.5)
        for name, buffer in module.named_buffers():
            if name.endswith(("latent_avg", "mean_image")):
                buffer.copy_(torch.randn(buffer.shape, generator=source) * 0.3)
    return module.eval()


@pytest.fixture(name="liven")
def _liven():
    torch.manual_seed(0)
    return liven


@pytest.fixture
def make():
    """A method by key and family, livened."""

    def build(key: str, family: ModelFamily = TINY) -> Method:
        torch.manual_seed(1)
        method = create(key, family)
        with torch.no_grad():
            for layer in (getattr(method, "decoder", None) or method.generator).to_rgbs:
                layer.conv.weight /= 8
        return liven(method)

    return build


@pytest.fixture
def photo():
    """Random pixels of a method's encoder size."""

    def pixels(method: Method, batch: int = 1) -> torch.Tensor:
        source = torch.Generator().manual_seed(2)
        return torch.rand(batch, 3, *method.family.encoder_size, generator=source) * 2 - 1

    return pixels
