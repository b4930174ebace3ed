from __future__ import annotations

import pytest
import torch

from training.data import FaceSet
from training.stages.gan import GanOptions, GanStage


@pytest.fixture
def make(family, faces):
    def stage(seed: int = 3, **options) -> GanStage:
        return GanStage(
            family, faces, GanOptions(**{"batch": 4, "r1_every": 2, "ema_images": 20.0, **options}), seed=seed
        )

    return stage


@pytest.mark.parametrize("bf16", [False, True])
def test_resume_is_exact(make, assert_exact_resume, bf16):
    assert_exact_resume(lambda: make(bf16=bf16), cut=3, total=5)


def test_mixed_codes_change_once(make):
    torch.manual_seed(0)
    stage = make(mixing=1.0, batch=12)
    codes = stage._codes()
    assert codes.shape == (12, stage.family.w_rows, stage.family.style_dim)
    changes = (codes[:, 1:] != codes[:, :-1]).any(dim=2).sum(dim=1)
    assert (changes == 1).all()
    cuts = (codes[:, 1:] != codes[:, :-1]).any(dim=2).float().argmax(dim=1)
    assert cuts.unique().numel() > 2


def test_without_mixing_a_code_is_one_row_repeated(make):
    codes = make(mixing=0.0)._codes()
    assert torch.equal(codes, codes[:, :1].expand_as(codes))
    assert not torch.equal(codes[0], codes[1])


def test_mixing_probability(make):
    torch.manual_seed(1)
    stage = make(mixing=0.25, batch=12)
    with torch.no_grad():
        mixed = [(codes := stage._codes())[:, 0].ne(codes[:, -1]).any(dim=1) for _ in range(60)]
    assert torch.cat(mixed).float().mean().item() == pytest.approx(0.25, abs=0.06)


def test_penalty_every_r1_every_steps(make):
    stage = make(r1_every=3)
    with_penalty = [step for step in range(7) if "r1" in stage.step(step)]
    assert with_penalty == [0, 3, 6]


def test_penalty_is_the_squared_gradient(make, faces, monkeypatch):
    stage = make(augment=(), r1_gamma=0.5, r1_every=4)
    losses = {}
    names = {id(optimizer): name for name, optimizer in stage.optimizers.items()}
    monkeypatch.setattr(
        "training.stages.gan.descend", lambda loss, optimizer: losses.setdefault(names[id(optimizer)], loss.item())
    )
    real = faces.tensor(slice(0, 4))
    penalty = stage._penalty(real)
    source = real.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(stage.discriminator(source).sum(), source)
    expected = gradient.square().sum(dim=(1, 2, 3)).mean()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses == {"discriminator": pytest.approx(0.5 / 2 * 4 * expected.item(), rel=1e-5)}


def test_step_trains_both_networks_and_moves_the_average(make, state, changed):
    stage = make()
    before = {name: state(module) for name, module in stage.modules.items()}
    scalars = stage.step(0)
    assert {"d_loss", "g_loss", "real_sign", "r1"} == set(scalars)
    assert -1 <= float(scalars["real_sign"]) <= 1
    parameters = {
        name: {n for n, _ in module.named_parameters()} for name, module in stage.modules.items() if name != "average"
    }
    for name, expected in parameters.items():
        assert changed(before[name], stage.modules[name]) == expected
    assert changed(before["average"], stage.average) == {f"module.{n}" for n in parameters["generator"]}


def test_lower_only_keeps_the_mapping_and_the_upper_half(make, state, changed):
    stage = make(lower_only=True)
    before, average = state(stage.generator), state(stage.average)
    for step in range(3):
        stage.step(step)
    kept = {id(p) for m in (stage.generator.style, *stage.generator.upper_modules()) for p in m.parameters()}
    expected = {name for name, p in stage.generator.named_parameters() if id(p) not in kept}
    assert changed(before, stage.generator) == expected
    assert changed(average, stage.average) == {f"module.{name}" for name in expected}
    # What `upper` and the mapping compute stays the same to the bit.
    torch.manual_seed(0)
    feature, w = (
        torch.randn(2, *stage.family.feature_shape),
        torch.randn(2, stage.family.w_rows, stage.family.style_dim),
    )
    image = stage.generator.upper(feature, w)
    stage.generator.load_state_dict(before)
    assert torch.equal(stage.generator.upper(feature, w), image)


def test_average_follows_its_formula(make):
    stage = make(ema_images=2.0)
    old = [p.clone() for p in stage.average.module.parameters()]
    stage.step(9)
    keep = 0.5 ** (4 / 2.0)
    for average, before, now in zip(stage.average.module.parameters(), old, stage.generator.parameters(), strict=True):
        torch.testing.assert_close(average, keep * before + (1 - keep) * now)


def test_seed_decides_the_weights(make):
    first, again, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(first.generator.input.input, again.generator.input.input)
    assert torch.equal(first.fixed_z, again.fixed_z)
    assert not torch.equal(first.generator.input.input, other.generator.input.input)


def test_grid_shows_the_average(make):
    stage = make()
    grid = stage.grid()
    assert grid.shape == (4, 8, 3, 32, 32)
    codes = stage.average.module.broadcast(stage.average.module.mapping(stage.fixed_z[:1]))
    torch.testing.assert_close(grid[0, 0], stage.average.module(codes)[0], rtol=1e-4, atol=1e-4)


def test_batch_larger_than_the_set(family, faces: FaceSet):
    with pytest.raises(ValueError, match="batch 13 is larger than the data set of 12 images"):
        GanStage(family, faces, GanOptions(batch=13))


def test_unknown_augmentation(make):
    with pytest.raises(ValueError, match="unknown augmentation 'blur'"):
        make(augment=("blur",)).step(0)
