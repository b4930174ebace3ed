"""A tiny family, random systems of it, and photos to export them with."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch

from engines.directions import Direction
from engines.family import FACES_1024_MOBILE, EditorArchitecture, ModelFamily
from engines.photo.resample import Filter
from export.onnx_graph import OPSET
from export.pipelines import ImageIn
from training.methods.paper import EditingSystem

TINY = ModelFamily(
    name="tiny-64",
    size=64,
    style_dim=16,
    mapping_layers=1,
    channel_base=512,
    channel_max=16,
    feature_resolution=8,
    encoder_size=(32, 32),
    encoder_width=4,
    head_width=16,
    editor=EditorArchitecture(window=4, heads=4, ftem_blocks=1, edem_layers=1, edem_mlp_ratio=2, edfm_blocks=1),
)

MOBILE = dataclasses.replace(
    FACES_1024_MOBILE,
    name="mobile-64",
    size=64,
    style_dim=32,
    mapping_layers=1,
    channel_base=1024,
    channel_max=64,
    feature_resolution=16,
    encoder_size=(64, 64),
    encoder_width=32,
    encoder_blocks=1,
    editor=dataclasses.replace(
        FACES_1024_MOBILE.editor, window=8, heads=4, ftem_blocks=1, edem_layers=1, edfm_blocks=1, inner_width=32
    ),
)
"""Light networks and generator, wide enough that their products are quantised."""


def random_system(family: ModelFamily, seed: int = 0) -> EditingSystem:
    """A system none of whose branches is switched off by its initialisation, with BatchNorm statistics of its own."""
    torch.manual_seed(seed)
    system = EditingSystem(family).eval().requires_grad_(False)
    for parameter in system.parameters():
        spread = 0.05 if parameter.ndim < 2 else 0.5 / math.sqrt(parameter[0].numel())
        parameter += spread * torch.randn_like(parameter)
    # Without training the image grows to about 20; a sixteenth of that is mostly inside [-1, 1], partly clamped.
    for layer in (system.generator.to_rgb1, *system.generator.to_rgbs):
        layer.conv.weight /= 16
    for name, buffer in system.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    system.latent_avg.normal_(0.0, 0.5)
    return system


def random_photos(family: ModelFamily, count: int, seed: int = 0) -> np.ndarray:
    """uint8 M x h x w x 3: smooth colour gradients with some noise, unlike each other."""
    source = np.random.default_rng(seed)
    height, width = family.image_shape
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = source.uniform(0.5, 3, (count, 3, 2))
    phase = source.uniform(0, 6, (count, 3))
    angle = waves[..., 0, None, None] * x * 6 + waves[..., 1, None, None] * y * 6 + phase[..., None, None]
    image = 127.5 + 110 * np.sin(angle) + source.normal(0, 6, (count, 3, height, width))
    return np.ascontiguousarray(image.clip(0, 255).round().astype(np.uint8).transpose(0, 2, 3, 1))


def smile(family: ModelFamily) -> Direction:
    return Direction(
        name="smile",
        kind="interfacegan",
        space="w",
        vector=np.linspace(-0.1, 0.1, family.style_dim, dtype=np.float32),
        min_strength=-3,
        max_strength=3,
        description="a test",
        source="made up",
        licence="CC0-1.0",
    )


def export_door(path: Path, source: tuple[int, int], target: tuple[int, int], kind: Filter = "bicubic") -> Path:
    """The way in of a graph, alone, as ONNX: image uint8 B x h x w x 3."""
    torch.onnx.export(
        ImageIn(source, target, kind).eval(),
        (torch.zeros((2, *source, 3), dtype=torch.uint8),),
        path,
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        verbose=False,
    )
    return path
