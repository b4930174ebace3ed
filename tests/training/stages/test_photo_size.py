"""Stages whose generator draws larger pictures than their photos are, faces and cars: what is compared and judged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from engines.directions import Direction
from engines.family import ModelFamily
from training.data import FaceSet, as_photos, load_faces
from training.methods.paper import EditingSystem
from training.networks.discriminator import Discriminator
from training.stages.e4e import E4EOptions, E4EStage
from training.stages.editor import EditorOptions, EditorStage
from training.stages.encoder import EncoderOptions, EncoderStage

SHAPES = {"faces": (32, 32), "cars": (48, 64)}


@pytest.fixture(params=SHAPES)
def large(request, family) -> ModelFamily:
    """A generator of twice the side of the encoders' input; of cars three quarters of the rows are kept."""
    if request.param == "faces":
        return dataclasses.replace(family, name="large", size=64)
    return dataclasses.replace(
        family,
        name="cars",
        size=128,
        channel_base=512,
        visible_rows=(16, 112),
        feature_resolution=16,
        encoder_size=(48, 64),
    )


@pytest.fixture
def small_photos(large, photo_folder) -> FaceSet:
    shape = SHAPES["faces" if large.visible_rows is None else "cars"]
    return load_faces(photo_folder, shape, held_out=3)[0]


@pytest.fixture
def untrained(large) -> EditingSystem:
    torch.manual_seed(0)
    return EditingSystem(large).eval().requires_grad_(False)


def _watched(stage: E4EStage | EncoderStage | EditorStage) -> list[torch.Tensor]:
    """What the stage's loss is given from now on."""
    seen: list[torch.Tensor] = []
    loss = stage.loss

    def compare(output: torch.Tensor, target: torch.Tensor):
        seen.extend((output.detach(), target))
        return loss(output, target)

    stage.loss = compare  # type: ignore[assignment]
    return seen


def test_e4e(large, small_photos, untrained, loss_files):
    stage = E4EStage(large, untrained.generator, small_photos, loss_files, E4EOptions(batch=2))
    seen = _watched(stage)
    stage.step(0)
    height, width = small_photos.size
    assert [image.shape for image in seen] == [(2, 3, height, width)] * 2
    assert stage.grid().shape == (2, 8, 3, height, width)


def test_encoder(large, small_photos, untrained, loss_files):
    height, width = small_photos.size
    judge, judged = Discriminator(large, width), []
    judge.register_forward_pre_hook(lambda _, images: judged.append(images[0].detach()))
    options = EncoderOptions(batch=2, adversarial_from=0)
    stage = EncoderStage(large, untrained.generator, judge, small_photos, loss_files, options)
    seen = _watched(stage)
    assert "d_loss" in stage.step(0)
    assert [image.shape for image in seen] == [(2, 3, height, width)] * 4
    # Both reconstructions, then the photos, then both at once: squares, black where a car's photo has no rows.
    assert [tuple(image.shape) for image in judged] == [(n, 3, width, width) for n in (2, 2, 2, 4)]
    margin = (width - height) // 2
    torch.testing.assert_close(judged[0][:, :, margin : margin + height], seen[0])
    assert all((image[:, :, :margin] == -1).all() for image in judged)
    assert stage.grid().shape == (3, 8, 3, height, width)


@pytest.mark.parametrize("ahead", [True, False])
def test_editor(large, small_photos, untrained, loss_files, ahead):
    direction = Direction(
        name="one",
        kind="interfacegan",
        space="w",
        vector=np.full(large.style_dim, 0.1, np.float32),
        min_strength=-1.0,
        max_strength=1.0,
        description="",
        source="test",
        licence="Apache-2.0",
    )
    options = EditorOptions(batch=4, photo_share=0.5, ahead=ahead)
    stage = EditorStage(untrained, small_photos, [direction], loss_files, options)
    seen = _watched(stage)
    stage.step(0)
    height, width = small_photos.size
    assert [image.shape for image in seen] == [(2, 3, height, width)] * 4
    assert stage.grid().shape == (3, 8, 3, height, width)


def test_the_drawn_target_is_what_photos_would_be(large, small_photos, untrained):
    """Averaging keeps the mean of the rows that are kept."""
    with torch.no_grad():
        picture = untrained.generator(torch.randn(2, large.w_rows, large.style_dim))
    first, last = large.visible_rows or (0, large.size)
    seen = as_photos(picture, large, small_photos.size)
    torch.testing.assert_close(seen.mean(dim=(2, 3)), picture[:, :, first:last].mean(dim=(2, 3)))


def test_a_discriminator_of_the_photos_size(family):
    small, own = Discriminator(family, 16), Discriminator(family)
    assert small(torch.zeros(2, 3, 16, 16)).shape == (2, 1)
    names = {n: t.shape for n, t in own.state_dict().items()}
    assert len(small.state_dict()) < len(names)
    assert small.final_conv.state_dict().keys() == own.final_conv.state_dict().keys()
    for side in (4, 20, 64):
        with pytest.raises(ValueError, match=rf"takes 8, 16 \.\.\. 32 pixels, not {side}"):
            Discriminator(family, side)
