from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.family import DEMO_64
from training.losses.image import ImageWeights
from training.networks.latents import mean_w
from training.stages.e4e import E4EOptions, E4EStage, LatentDiscriminator


@pytest.fixture
def make(family, faces, loss_files, generator):
    def stage(seed: int = 3, **options) -> E4EStage:
        return E4EStage(
            family,
            generator,
            faces,
            loss_files,
            E4EOptions(**{"batch": 3, "learning_rate": 1e-3, **options}),
            seed=seed,
        )

    return stage


# Ranger takes its first step at the sixth, and looks ahead at the sixth.
def test_resume_is_exact(make, assert_exact_resume):
    assert_exact_resume(make, cut=5, total=8)


def test_resume_is_exact_in_bfloat16(make, assert_exact_resume):
    assert_exact_resume(lambda: make(bf16=True, progressive_every=2), cut=2, total=4)


@given(every=st.integers(1, 50), start=st.integers(0, 200), step=st.integers(0, 2000))
def test_rows_join_one_by_one(every, start, step):
    stage = E4EStage.__new__(E4EStage)
    stage.family, stage.options = DEMO_64, E4EOptions(progressive_from=start, progressive_every=every)
    rows = stage._rows(step)
    assert 1 <= rows <= DEMO_64.w_rows
    assert rows <= stage._rows(step + 1) <= rows + 1
    if step < start:
        assert rows == 1
    else:
        assert rows == min(DEMO_64.w_rows, 2 + (step - start) // every)


def test_all_rows_without_progression(make, family):
    assert make()._rows(0) == family.w_rows


def test_rows_that_have_not_joined_repeat_the_first(make, family):
    offsets = torch.randn(2, family.w_rows, family.style_dim)
    stage = make()
    limited = stage._limit(offsets, 3)
    assert torch.equal(limited[:, :3], offsets[:, :3])
    assert torch.equal(limited[:, 3:], offsets[:, :1].expand(-1, family.w_rows - 3, -1))
    assert stage._limit(offsets, family.w_rows) is offsets


def test_heads_that_have_not_joined_get_no_gradient(make):
    stage = make(progressive_from=100, progressive_every=10)
    scalars = stage.step(0)
    assert scalars["delta"] == 0
    reached = [any(p.grad is not None and p.grad.any() for p in head.parameters()) for head in stage.encoder.styles]
    assert reached == [True] + [False] * (len(reached) - 1)


def test_delta_is_the_mean_length_of_the_offsets(make, faces):
    stage = make()
    stage.encoder.eval()
    delta = stage.step(0)["delta"]
    # A square image set's flips are drawn first; without training mode the encoder's output depends on them alone.
    torch.manual_seed(0)
    stage = make()
    stage.encoder.eval()
    seen = {}
    limit = stage._limit
    stage._limit = lambda offsets, rows: seen.setdefault("offsets", limit(offsets, rows))
    scalars = stage.step(0)
    offsets = seen["offsets"].detach()
    expected = (offsets[:, 1:] - offsets[:, :1]).norm(dim=2).mean()
    assert scalars["delta"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert delta > 0


def test_delta_weighs_the_sum_over_rows(make, family):
    """2e-4 times the norm of each row's offset (encoder4editing's `delta_norm_lambda`)."""
    gradients = []
    for weight in (0.0, 2e-4, 4e-4):
        stage = make(delta=weight)
        torch.manual_seed(0)
        scalars = stage.step(0)
        assert scalars["delta"] > 0
        gradients.append(stage.encoder.styles[1].linear.bias.grad.clone())
    # The bias of a head moves its offset alone: the gradient of a norm is a unit vector, whatever its length.
    one, two = gradients[1] - gradients[0], gradients[2] - gradients[0]
    assert 0 < one.norm() <= 2e-4 * 1.001
    torch.testing.assert_close(two, 2 * one, rtol=1e-2, atol=1e-7)
    assert E4EOptions().delta == 2e-4


def test_only_the_encoder_and_its_judge_change(make, state, changed, generator):
    stage = make()
    frozen, before = state(stage.generator), {name: state(module) for name, module in stage.modules.items()}
    for step in range(7):
        scalars = stage.step(step)
    assert set(scalars) == {"l2", "lpips", "identity", "delta", "latent"}
    assert not changed(frozen, stage.generator)
    assert stage.generator is generator and all(p.grad is None for p in generator.parameters())
    parameters = {n for n, _ in stage.encoder.named_parameters()}
    assert len(changed(before["encoder"], stage.encoder) & parameters) > 0.9 * len(parameters)
    assert changed(before["latent"], stage.latent) == set(before["latent"])
    assert changed(before["average"], stage.average)


def test_the_judges_gradient_of_the_encoders_loss_is_dropped(make):
    """The latent discriminator learns from its own loss alone: the encoder's must not reach it."""
    stage = make(latent_r1=0.0)
    torch.manual_seed(0)
    stage.step(0)
    with_judgement = [p.grad.clone() for p in stage.latent.parameters()]
    torch.manual_seed(3)
    stage = make(latent_r1=0.0, latent=0.0)
    torch.manual_seed(0)
    stage.step(0)
    for one, other in zip(with_judgement, stage.latent.parameters(), strict=True):
        assert torch.equal(one, other.grad)


def test_starts_from_the_mean_code(make, generator):
    torch.testing.assert_close(make().mean, mean_w(generator))


def test_grid(make, faces):
    stage = make()
    grid = stage.grid()
    assert grid.shape == (2, 8, 3, 32, 32)
    assert torch.equal(grid[0], faces.tensor(slice(0, 8)))


def test_latent_discriminator():
    judge = LatentDiscriminator(6)
    assert judge(torch.randn(4, 6)).shape == (4, 1)
    assert [tuple(layer.weight.shape) for layer in judge.mlp if hasattr(layer, "weight")] == [(6, 6)] * 3 + [(1, 6)]


def test_identity_images_are_passed_on(make):
    stage = make(image=ImageWeights(identity_images=2, lpips=0.0))
    assert stage.loss.weights.identity_images == 2
    assert stage.config()["options"]["image"].items() >= {"lpips": 0.0, "identity": 0.1, "identity_images": 2}.items()
