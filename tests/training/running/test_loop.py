from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from engines.family import DEMO_64, ModelFamily
from training.running import checkpoint
from training.running.loop import LoopOptions, save_grid, step_seed, train
from training.stages.protocol import Averaged, set_requires_grad


class Regression:
    """A small real stage: a linear layer learns random data; `bad_at` and `stop_at` make its loss NaN or stop it."""

    def __init__(
        self,
        name: str = "regression",
        family: ModelFamily = DEMO_64,
        bad_at: int = -1,
        stop_at: int = -1,
        width: int = 3,
    ) -> None:
        torch.manual_seed(0)
        self.name, self.family, self.bad_at, self.stop_at = name, family, bad_at, stop_at
        self.net = nn.Linear(width, 2)
        self.average = Averaged(self.net, half_life=10.0)
        self.optimizer = Adam(self.net.parameters(), 0.01)

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"net": self.net, "average": self.average}

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        return {"net": self.optimizer}

    def config(self) -> dict[str, Any]:
        return {"family": self.family.to_dict()}

    def grid(self) -> Tensor:
        return torch.zeros(2, 3, 3, 4, 5)

    def step(self, step: int) -> dict[str, float | Tensor]:
        if step == self.stop_at:
            raise KeyboardInterrupt
        loss = self.net(torch.randn(4, self.net.in_features)).square().mean()
        if step == self.bad_at:
            loss = loss * math.nan
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.average.update(self.net, (step + 1) * 4, 4)
        return {"loss": loss.detach(), "step_seen": float(step)}


def _options(steps: int, **values) -> LoopOptions:
    return LoopOptions(**{"steps": steps, "log_every": 1, "checkpoint_every": 1000, "grid_every": 1000, **values})


def test_exact_resume(assert_exact_resume):
    assert_exact_resume(Regression, cut=4, total=11)


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, 11), max_size=3))
def test_any_number_of_interruptions(tmp_path_factory, cuts):
    whole, parts = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parts")
    straight, last = Regression(), Regression()
    train(straight, whole, _options(12))
    for end in [*sorted(cuts), 12]:
        last = Regression()
        assert train(last, parts, _options(end)) == end
    for one, other in zip(straight.modules.values(), last.modules.values(), strict=True):
        for tensor, expected in zip(other.state_dict().values(), one.state_dict().values(), strict=True):
            assert torch.equal(tensor, expected)


def test_a_finished_run_changes_nothing(tmp_path):
    train(Regression(), tmp_path, _options(3))
    before = checkpoint.load(tmp_path / "checkpoint")[0]
    assert train(Regression(), tmp_path, _options(3)) == 3
    after = checkpoint.load(tmp_path / "checkpoint")[0]
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_log_rows_are_means(tmp_path, rows):
    train(Regression(), tmp_path, _options(10, log_every=4))
    assert [row["step"] for row in rows(tmp_path)] == ["4", "8", "10"]
    assert [float(row["step_seen"]) for row in rows(tmp_path)] == [1.5, 5.5, 8.5]


def test_log_is_cut_back_to_the_checkpoint(tmp_path, rows):
    """Rows logged after the last checkpoint are computed again, not kept twice."""
    stage = Regression(bad_at=7)
    with pytest.raises(FloatingPointError):
        train(stage, tmp_path, _options(10, checkpoint_every=5))
    assert [row["step"] for row in rows(tmp_path)] == [str(i) for i in range(1, 8)]
    train(Regression(), tmp_path, _options(6))
    assert [row["step"] for row in rows(tmp_path)] == [str(i) for i in range(1, 7)]


def test_checkpoints_and_grids_at_their_steps(tmp_path, monkeypatch):
    saved = []
    save = checkpoint.save

    def record(folder: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        saved.append(meta["step"])
        save(folder, tensors, meta)

    monkeypatch.setattr(checkpoint, "save", record)
    train(Regression(), tmp_path, _options(8, checkpoint_every=3, grid_every=5))
    assert saved == [3, 6, 8]
    assert sorted(path.name for path in (tmp_path / "grids").iterdir()) == ["0000005.png", "0000008.png"]


def test_meta_names_what_was_trained(tmp_path):
    train(Regression(), tmp_path, _options(2, seed=9))
    meta = json.loads((tmp_path / "checkpoint" / "meta.json").read_text())
    assert (meta["stage"], meta["step"], meta["seed"], meta["torch"]) == ("regression", 2, 9, torch.__version__)
    assert ModelFamily.from_dict(meta["config"]["family"]) == DEMO_64


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        (Regression("other"), _options(4), "stage 'regression', not 'other'"),
        (Regression(), _options(4, seed=1), "started with seed 0, not 1"),
        (Regression(family=dataclasses.replace(DEMO_64, channel_max=48)), _options(4), "another model family"),
        (Regression(width=4), _options(4), "the net in .* is damaged: size mismatch for weight"),
    ],
    ids=["stage", "seed", "family", "tensors"],
)
def test_another_runs_checkpoint_is_refused(tmp_path, stage, options, message):
    train(Regression(), tmp_path, _options(2))
    with pytest.raises(ValueError, match=message) as caught:
        train(stage, tmp_path, options)
    assert "\n" not in str(caught.value)
    assert checkpoint.load(tmp_path / "checkpoint")[1]["step"] == 2


@pytest.mark.parametrize(("bad_at", "kept"), [(4, 3), (5, 3), (6, 6)])
def test_a_loss_that_is_not_finite(tmp_path, bad_at, kept):
    """Whatever the intervals, no checkpoint holds weights from after the bad step."""
    with pytest.raises(FloatingPointError, match=f"regression: loss is not finite at step {bad_at + 1}"):
        train(Regression(bad_at=bad_at), tmp_path, _options(20, checkpoint_every=3, log_every=20))
    tensors, meta = checkpoint.load(tmp_path / "checkpoint")
    assert meta["step"] == kept
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert train(Regression(), tmp_path, _options(8)) == 8


def test_ctrl_c_leaves_a_checkpoint(tmp_path):
    assert train(Regression(stop_at=3), tmp_path, _options(10)) == 3
    assert checkpoint.load(tmp_path / "checkpoint")[1]["step"] == 3
    assert train(Regression(), tmp_path, _options(5)) == 5


def test_minutes_stop_with_a_checkpoint(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("training.running.loop.time.monotonic", lambda: float(next(clock)))
    reached = train(Regression(), tmp_path, _options(1000, minutes=2.0))
    assert 1 <= reached < 13
    assert checkpoint.load(tmp_path / "checkpoint")[1]["step"] == reached
    monkeypatch.undo()
    assert train(Regression(), tmp_path, _options(1000, minutes=0.0)) == reached
    assert train(Regression(), tmp_path, _options(reached + 2)) == reached + 2


def test_seconds_add_up(tmp_path, monkeypatch):
    clock = [0.0]

    def tick() -> float:
        clock[0] += 1.0
        return clock[0]

    monkeypatch.setattr("training.running.loop.time.monotonic", tick)
    train(Regression(), tmp_path, _options(3))
    first = checkpoint.load(tmp_path / "checkpoint")[1]["seconds"]
    train(Regression(), tmp_path, _options(6))
    assert first > 0 and checkpoint.load(tmp_path / "checkpoint")[1]["seconds"] > first


@pytest.mark.parametrize("name", ["steps", "log_every", "checkpoint_every", "grid_every"])
def test_options_below_one(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        LoopOptions(**{"steps": 5, name: 0})


def test_learning_rates_fall_at_the_end(tmp_path, monkeypatch):
    stage = Regression()
    seen = []
    step = stage.step
    monkeypatch.setattr(stage, "step", lambda i: seen.append(stage.optimizer.param_groups[0]["lr"]) or step(i))
    train(stage, tmp_path, _options(10, decay=0.5))
    assert seen[:6] == [0.01] * 6
    assert all(later < earlier for earlier, later in itertools.pairwise(seen[5:]))
    assert 0.001 < seen[-1] < 0.003


def test_a_resumed_run_obeys_the_rate_it_was_asked_for(tmp_path):
    train(Regression(), tmp_path, _options(3))
    stage = Regression()
    stage.optimizer.param_groups[0]["lr"] = 0.5
    train(stage, tmp_path, _options(4))
    assert stage.optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_decay_is_a_share(decay):
    with pytest.raises(ValueError, match="decay must be a share between 0 and 1"):
        LoopOptions(steps=5, decay=decay)


def test_step_seeds_differ():
    assert len({step_seed(seed, step) for seed in range(30) for step in range(30)}) == 900
    assert step_seed(3, 5) != step_seed(5, 3)


def test_average_of_parameters_and_buffers():
    torch.manual_seed(0)
    source = nn.BatchNorm1d(2)
    average = Averaged(source, half_life=8.0, ramp=0.5)
    assert not any(p.requires_grad for p in average.parameters()) and not average.module.training
    with torch.no_grad():
        source.weight.fill_(3.0)
        source.running_mean.fill_(5.0)
        source.num_batches_tracked += 4
    average.update(source, images=8, batch=4)
    # The half-life is min(8, 8 * 0.5) = 4 images: half of the way after a batch of 4.
    assert torch.equal(average.module.weight, torch.full((2,), 2.0))
    average.update(source, images=1000, batch=4)
    torch.testing.assert_close(average.module.weight, torch.full((2,), 3.0 - 0.5**0.5))
    assert torch.equal(average.module.running_mean, source.running_mean)
    assert average.module.num_batches_tracked == 4


def test_save_grid(tmp_path):
    images = torch.full((2, 3, 3, 4, 5), -1.0)
    images[0, 1] = 1.0
    images[1, 2, 0] = 7.0
    save_grid(images, tmp_path / "new" / "grid.png")
    with Image.open(tmp_path / "new" / "grid.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (8, 15, 3)
    assert (pixels[:4, 5:10] == 255).all() and (pixels[4:, 10:] == (255, 0, 0)).all()
    assert pixels.sum() == 4 * 5 * 3 * 255 + 4 * 5 * 255
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]


def test_set_requires_grad():
    modules = [nn.Linear(1, 1), nn.Conv2d(1, 1, 1)]
    set_requires_grad(modules, False)
    assert not any(p.requires_grad for m in modules for p in m.parameters())
    set_requires_grad(modules, True)
    assert all(p.requires_grad for m in modules for p in m.parameters())
