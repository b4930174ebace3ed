from __future__ import annotations

import pytest
import torch

from training.stages.e4e import E4EOptions
from training.stages.encoder import EncoderOptions
from training.stages.gan import GanOptions
from training.stages.joint import JointOptions, JointStage


@pytest.fixture
def make(family, faces, loss_files):
    def stage(seed: int = 3, every: int = 1, **options) -> JointStage:
        return JointStage(
            family,
            faces,
            loss_files,
            GanOptions(batch=4, r1_every=2, augment=("translation",), **options),
            JointOptions(e4e=E4EOptions(batch=3, learning_rate=1e-3), adversarial_every=every),
            seed=seed,
        )

    return stage


def test_resume_is_exact(make, assert_exact_resume):
    assert_exact_resume(make, cut=4, total=7)


def test_resume_is_exact_with_rare_adversarial_steps(make, assert_exact_resume):
    assert_exact_resume(lambda: make(every=3), cut=2, total=4)


def test_adversarial_every(make, state, changed):
    stage = make(every=3)
    judged = []
    for step in range(5):
        before, average = state(stage.gan.discriminator), state(stage.gan.average)
        scalars = stage.step(step)
        assert bool(changed(before, stage.gan.discriminator)) == ("d_loss" in scalars)
        assert changed(average, stage.gan.average)
        if "d_loss" in scalars:
            judged.append(step)
    assert judged == [0, 3]
    assert stage.config()["joint"]["adversarial_every"] == 3


def test_adversarial_every_below_one(make):
    with pytest.raises(ValueError, match="adversarial_every must be at least 1, got 0"):
        make(every=0)


def test_lower_only_holds_for_the_reconstruction_too(make, state, changed):
    stage = make(lower_only=True)
    before = state(stage.gan.generator)
    mean = None
    for step in range(2):
        stage.step(step)
        assert mean is None or torch.equal(mean, stage.e4e.mean)
        mean = stage.e4e.mean.clone()
    upper = {id(p) for m in stage.gan.generator.upper_modules() for p in m.parameters()}
    expected = {
        name
        for name, p in stage.gan.generator.named_parameters()
        if id(p) not in upper and not name.startswith("style.")
    }
    assert changed(before, stage.gan.generator) == expected


def test_belongs_to_the_generator_stage(make):
    stage = make()
    assert stage.name == "generator"
    assert set(stage.modules) == {
        "generator",
        "discriminator",
        "average",
        "e4e_encoder",
        "e4e_latent",
        "e4e_average",
    }
    assert set(stage.optimizers) == {"generator", "discriminator", "e4e_encoder", "e4e_latent", "e4e_generator"}
    assert stage.e4e.generator is stage.gan.generator


def test_reconstruction_trains_the_synthesis_and_not_the_mapping(make, state, changed):
    stage = make()
    before = state(stage.gan.generator)
    judge = state(stage.gan.discriminator)
    stage.e4e.step(0)
    moved = changed(before, stage.gan.generator)
    parameters = {name for name, _ in stage.gan.generator.named_parameters()}
    # The noise of each layer has its own weight; every one of them is trained too.
    assert moved == {name for name in parameters if not name.startswith("style.")}
    assert not changed(judge, stage.gan.discriminator)


def test_a_step_trains_everything(make, state, changed):
    stage = make()
    before = {name: state(module) for name, module in stage.modules.items()}
    scalars = stage.step(0)
    assert set(scalars) == {
        "d_loss", "real_sign", "r1", "g_loss", "l2", "lpips", "identity", "delta", "latent",
    }  # fmt: skip
    generator = {name for name, _ in stage.gan.generator.named_parameters()}
    assert changed(before["generator"], stage.gan.generator) == generator
    assert changed(before["discriminator"], stage.gan.discriminator)
    assert changed(before["e4e_latent"], stage.e4e.latent)


def test_offsets_start_from_the_mean_of_the_current_mapping(make):
    stage = make()
    stage.step(0)
    mean = stage.e4e.mean.clone()
    stage.step(1)
    assert not torch.equal(mean, stage.e4e.mean)


def test_reconstruction_gets_better(make):
    stage = make()
    losses = []
    for step in range(12):
        torch.manual_seed(step)
        losses.append(float(stage.e4e.step(step)["l2"]))
    assert losses[-1] < losses[0]


def test_grid_shows_samples_and_reconstructions(make):
    assert make().grid().shape == (6, 8, 3, 32, 32)


def test_each_encoder_has_its_own_rhythm(family, faces, loss_files, state, changed):
    """With E every third step, it and its optimizer stand still in between, and its own steps are counted."""
    options = JointOptions(
        e4e=E4EOptions(batch=2),
        encoder=EncoderOptions(batch=2, adversarial_from=10**9),
        adversarial_every=2,
        encoder_every=3,
        generator_rate=0.02,
    )
    stage = JointStage(family, faces, loss_files, GanOptions(batch=2), options, seed=3)
    assert stage.encoder is not None
    for name in ("e4e_generator", "encoder_generator"):
        assert stage.optimizers[name].param_groups[0]["lr"] == 0.02
    trained = []
    for step in range(4):
        before = state(stage.encoder.encoder)
        scalars = stage.step(step)
        assert bool(changed(before, stage.encoder.encoder)) == ("encoder_l2" in scalars)
        assert "l2" in scalars
        if "encoder_l2" in scalars:
            trained.append(step)
    assert trained == [0, 3]
