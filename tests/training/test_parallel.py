"""Two real processes on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from engines.family import DEMO_64
from training import parallel
from training.data import Batches
from training.running.loop import LoopOptions, step_seed, train
from training.stages.protocol import Averaged

COUNT, STEPS = 24, 5


class Fit:
    """A linear layer that learns fixed data in batches."""

    name = "fit"

    def __init__(self, batch: int) -> None:
        torch.manual_seed(0)
        self.net, self.batch = nn.Linear(3, 2), batch
        self.average = Averaged(self.net, half_life=10.0)
        self.optimizer = SGD(self.net.parameters(), 0.1)
        self.batches = Batches(COUNT, batch, 0)
        self.inputs, self.targets = torch.randn(COUNT, 3), torch.randn(COUNT, 2)
        self.used: list[int] = []

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"net": self.net, "average": self.average}

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        return {"net": self.optimizer}

    def config(self) -> dict[str, Any]:
        return {"family": DEMO_64.to_dict()}

    def grid(self) -> Tensor:
        return torch.zeros(1, 1, 3, 2, 2)

    def step(self, step: int) -> dict[str, float | Tensor]:
        indices = self.batches.indices(step)
        self.used += indices.tolist()
        loss = (self.net(self.inputs[indices]) - self.targets[indices]).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.average.update(self.net, (step + 1) * self.batch, self.batch)
        return {"loss": loss.detach()}


def _train(folder: Path) -> int:
    torch.set_num_threads(1)
    assert parallel.begin("cpu") == "cpu"
    stage, rank = Fit(batch=4), parallel.rank()
    # Patience differs, and all the same both must stop together: the first process decides.
    reached = train(stage, folder / f"run{rank}", LoopOptions(steps=STEPS, minutes=1e9 if rank == 0 else 0.0))
    np.savez(
        folder / f"{rank}.npz",
        weight=stage.net.weight.detach().numpy(),
        average=stage.average.module.weight.detach().numpy(),
        used=stage.used,
        reached=reached,
        seed=step_seed(0, 3),
    )
    return reached


def _fail(folder: Path) -> None:
    parallel.begin("cpu")
    if parallel.rank():
        raise ValueError("this process fails")
    parallel.first_says(True)
    optimizer = SGD([torch.nn.Parameter(torch.ones(3))], 0.1)
    parallel.average_gradients(optimizer)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, np.ndarray]]]:
    folder = tmp_path_factory.mktemp("parallel")
    threads = torch.get_num_threads()
    assert parallel.together(_train, folder, 2) == STEPS
    torch.set_num_threads(threads)
    return folder, [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]


def test_two_processes_compute_what_one_does_with_twice_the_batch(processes, tmp_path):
    _, (first, second) = processes
    alone = Fit(batch=8)
    train(alone, tmp_path, LoopOptions(steps=STEPS))
    np.testing.assert_array_equal(first["weight"], second["weight"])
    np.testing.assert_allclose(first["weight"], alone.net.weight.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first["average"], alone.average.module.weight.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_no_image_is_drawn_twice_in_an_epoch(processes):
    _, (first, second) = processes
    epoch = COUNT // 8 * 4
    assert sorted([*first["used"][:epoch], *second["used"][:epoch]]) == list(range(COUNT))


def test_only_the_first_process_writes_and_decides(processes):
    folder, (first, second) = processes
    assert first["reached"] == second["reached"] == STEPS
    assert (folder / "run0" / "checkpoint" / "meta.json").exists() and (folder / "run0" / "log.csv").exists()
    assert not list((folder / "run1").iterdir())


def test_random_draws_differ_between_processes(processes):
    _, (first, second) = processes
    assert first["seed"] == step_seed(0, 3) != second["seed"]


def test_afterwards_this_process_is_alone_again(processes):
    assert "WORLD_SIZE" not in os.environ
    assert (parallel.rank(), parallel.processes()) == (0, 1)


def test_another_process_fails(tmp_path):
    with pytest.raises(ChildProcessError, match="1 of 2 training processes failed"):
        parallel.together(_fail, tmp_path, 2)
    assert parallel.processes() == 1


def test_alone_nothing_changes():
    assert parallel.begin("cpu") == "cpu"
    assert (parallel.rank(), parallel.processes(), parallel.first_says(True)) == (0, 1, True)
