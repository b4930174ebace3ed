from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from training.networks.stylegan2 import Generator
from training.stages.encoder import Encoder, EncoderOptions, EncoderStage, reconstruct


@pytest.fixture
def make(family, faces, loss_files, generator, discriminator):
    def stage(seed: int = 3, **options) -> EncoderStage:
        options = EncoderOptions(**{"batch": 3, "learning_rate": 1e-3, "adversarial_from": 2, **options})
        return EncoderStage(
            family, copy.deepcopy(generator), copy.deepcopy(discriminator), faces, loss_files, options, seed=seed
        )

    return stage


# Ranger takes its first step at the sixth; the adversarial loss starts on the other side of the cut.
def test_resume_is_exact(make, assert_exact_resume):
    assert_exact_resume(lambda: make(adversarial_from=3, adversarial_every=2), cut=2, total=8)


def test_resume_is_exact_within_the_adversarial_part(make, assert_exact_resume):
    assert_exact_resume(lambda: make(adversarial_from=0, adversarial_every=2, bf16=True), cut=3, total=4)


def test_adversarial_steps(make, state, changed):
    stage = make(adversarial_from=3, adversarial_every=2)
    judged = []
    for step in range(7):
        before = state(stage.discriminator)
        scalars = stage.step(step)
        moved = bool(changed(before, stage.discriminator))
        assert moved == ("d_loss" in scalars)
        if moved:
            judged.append(step)
    assert judged == [4, 6]
    assert {"l2", "lpips", "identity", "w_l2", "w_lpips", "w_identity", "feature"} < set(scalars)


def _gradient(stage: EncoderStage, step: int) -> torch.Tensor:
    torch.manual_seed(0)
    stage.step(step)
    return torch.cat([p.grad.flatten() for p in stage.encoder.parameters() if p.grad is not None])


def test_adversarial_loss_counts_from_its_step_on(make):
    plain = make(adversarial_from=10)
    batches = plain.batches.indices(0)
    without = _gradient(plain, 0)
    assert torch.equal(_gradient(make(adversarial_from=0, adversarial=0.0), 0), without)
    started = make(adversarial_from=0, adversarial=1.0)
    assert (started.batches.indices(0) == batches).all()
    assert not torch.allclose(_gradient(started, 0), without)


def test_rarer_adversarial_terms_weigh_more(make):
    without = _gradient(make(adversarial_from=10), 0)
    every = _gradient(make(adversarial_from=0, adversarial=1.0), 0) - without
    rarer = _gradient(make(adversarial_from=0, adversarial=1.0, adversarial_every=4), 0) - without
    torch.testing.assert_close(rarer, 4 * every, rtol=1e-2, atol=1e-3 * every.abs().max().item())


def test_the_encoders_loss_does_not_train_the_discriminator(make):
    """Its gradient is that of its own loss, whatever the weight of the adversarial term."""
    gradients = []
    for weight in (0.0, 1.0):
        stage = make(adversarial_from=0, adversarial=weight)
        torch.manual_seed(0)
        stage.step(0)
        gradients.append([p.grad.clone() for p in stage.discriminator.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_only_the_encoder_changes(make, state, changed):
    stage = make(adversarial_from=100)
    frozen, judge = state(stage.generator), state(stage.discriminator)
    before = {name: state(module) for name, module in stage.modules.items()}
    for step in range(7):
        stage.step(step)
    assert not changed(frozen, stage.generator) and all(p.grad is None for p in stage.generator.parameters())
    assert not changed(judge, stage.discriminator)
    parameters = {n for n, _ in stage.encoder.named_parameters()}
    assert len(changed(before["encoder"], stage.encoder) & parameters) > 0.5 * len(parameters)
    assert any(name.startswith("ftem.") for name in changed(before["encoder"], stage.encoder))
    assert changed(before["average"], stage.average)


def test_the_upper_half_learns_if_asked(make, state, changed):
    """And nothing below the feature does: codes, directions and e4e stay valid."""
    stage = make(adversarial_from=100, upper_rate=1e-3)
    before, lower = state(stage.generator), {n for n, _ in stage.generator.named_parameters()}
    for layer in stage.generator.upper_modules():
        names = {id(p) for p in layer.parameters()}
        lower -= {n for n, p in stage.generator.named_parameters() if id(p) in names}
    for step in range(3):
        stage.step(step)
    moved = changed(before, stage.generator)
    assert moved and lower and not moved & lower
    assert changed(before, stage.modules["generator_average"].module) == moved


def test_resume_is_exact_with_the_upper_half(make, assert_exact_resume):
    assert_exact_resume(lambda: make(adversarial_from=100, upper_rate=1e-3), cut=2, total=4)


def test_the_encoder_adds_the_mean_before_the_ftem(family):
    torch.manual_seed(0)
    encoder = Encoder(family).eval()
    with torch.no_grad():
        for parameter in encoder.ftem.parameters():
            parameter.normal_(0, 0.2)
        image, mean = torch.randn(2, 3, 32, 32), torch.randn(family.style_dim)
        w, feature = encoder(image, mean)
        offsets, raw = encoder.encoder(image)
        torch.testing.assert_close(w, offsets + mean)
        torch.testing.assert_close(feature, encoder.ftem(raw, offsets + mean))
    assert feature.shape == (2, *family.feature_shape)


@pytest.mark.parametrize("keep", [False, True])
def test_reconstruct_honours_the_rgb_skip(family, keep):
    torch.manual_seed(0)
    generator = Generator(dataclasses.replace(family, rgb_skip=keep)).eval()
    w = torch.randn(1, family.w_rows, family.style_dim)
    with torch.no_grad():
        feature, rgb = generator.lower(w)
        image = reconstruct(generator, feature, w, rgb)
        assert torch.equal(image, generator.upper(feature, w, rgb if keep else None))
        assert torch.allclose(image, generator(w), atol=1e-4) == keep


def test_grid(make, faces):
    grid = make().grid()
    assert grid.shape == (3, 8, 3, 32, 32)
    assert torch.equal(grid[0], faces.tensor(slice(0, 8)))
