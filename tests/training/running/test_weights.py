from __future__ import annotations

import dataclasses

import pytest
import torch

from training.networks.discriminator import Discriminator
from training.networks.latents import mean_w
from training.networks.stylegan2 import Generator
from training.running.loop import LoopOptions, train
from training.running.weights import load_discriminator, load_generator, load_module
from training.stages.gan import GanOptions, GanStage


@pytest.fixture(scope="module")
def trained(family, faces, tmp_path_factory):
    run = tmp_path_factory.mktemp("generator")
    stage = GanStage(family, faces, GanOptions(batch=4, ema_images=50.0))
    train(stage, run, LoopOptions(steps=2))
    return run, stage


def test_generator_is_the_average_and_frozen(trained, family, state, changed):
    run, stage = trained
    generator = load_generator(run, family)
    assert not changed(state(stage.average.module), generator)
    assert changed(state(stage.generator), generator)
    assert not generator.training and not any(p.requires_grad for p in generator.parameters())


def test_discriminator_is_trainable(trained, family, state, changed):
    run, stage = trained
    discriminator = load_discriminator(run, family)
    assert not changed(state(stage.discriminator), discriminator)
    assert all(p.requires_grad for p in discriminator.parameters())


def test_meta_is_returned(trained, family):
    assert load_module(trained[0], "generator", "generator", Generator(family))["step"] == 2


def test_wrong_stage(trained, family):
    with pytest.raises(ValueError, match="a checkpoint of stage 'generator', not 'e4e'"):
        load_module(trained[0], "e4e", "average.module", Generator(family))


@pytest.mark.parametrize("change", [{"channel_max": 8}, {"size": 64}], ids=["widths", "layers"])
def test_wrong_family(trained, family, change):
    other = dataclasses.replace(family, **change)
    with pytest.raises(ValueError, match=r"average\.module .* does not fit this model family") as caught:
        load_generator(trained[0], other)
    assert "\n" not in str(caught.value)


def test_unknown_part(trained, family):
    with pytest.raises(ValueError, match=r"no tensors named encoder\.\*"):
        load_module(trained[0], "generator", "encoder", Discriminator(family))


def test_no_checkpoint(tmp_path, family):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_generator(tmp_path, family)


def test_mean_w(generator):
    mean = mean_w(generator, samples=9000, seed=4)
    z = torch.randn(9000, generator.family.style_dim, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(mean, generator.mapping(z).mean(dim=0), rtol=1e-4, atol=1e-5)
    assert torch.equal(mean, mean_w(generator, samples=9000, seed=4))
    assert not mean.requires_grad
