from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Adam

from bench.gpu.checkpoints import LEVELS, pack, unpack
from engines.errors import EdgeditError
from training.running import checkpoint

NONE: frozenset[str] = frozenset()


def layer(seed: int) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(100, 100)


def write(run: Path, stage: str, step: int, modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """A stage's checkpoint with one optimizer, as `training.running.loop` writes it."""
    first = next(iter(modules.values()))
    optimizer = Adam(first.parameters(), 1e-3)
    first(torch.ones(1, 100)).square().sum().backward()
    optimizer.step()
    tensors, meta = checkpoint.pack_optimizer("optimizer.main", optimizer)
    for name, module in modules.items():
        tensors |= checkpoint.module_tensors(name, module)
    checkpoint.save(run / stage / "checkpoint", tensors, {"stage": stage, "step": step, "optimizers": {"main": meta}})
    return tensors


def read(folder: Path, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return checkpoint.load(folder / stage / "checkpoint")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    names = ("generator", "average", "e4e_encoder", "e4e_latent", "e4e_average", "encoder_encoder", "encoder_average")
    write(folder, "generator", 10, {name: layer(index) for index, name in enumerate(names)})
    return folder


def test_a_stage_in_progress_goes_on_as_it_was(run: Path, tmp_path: Path) -> None:
    report = pack(run, tmp_path / "out", NONE)
    assert report["generator"] == {"step": 10, "bytes": report["generator"]["bytes"], "kept": LEVELS[0]}
    was, now = read(run, "generator")[0], read(tmp_path / "out", "generator")[0]
    assert was.keys() == now.keys()
    for name, tensor in now.items():
        kind = torch.float16 if "average" in name else torch.bfloat16 if "exp_avg" in name else torch.float32
        assert tensor.dtype == kind, name
        assert torch.allclose(tensor.float(), was[name], rtol=2e-2 if kind == torch.bfloat16 else 1e-3, atol=1e-4)
    assert unpack(tmp_path / "out", tmp_path / "again") == ["generator"]
    tensors, meta = read(tmp_path / "again", "generator")
    model = layer(99)
    model.load_state_dict(checkpoint.strip("generator", tensors))
    assert torch.equal(model.weight, was["generator.weight"])
    optimizer = Adam(model.parameters(), 1e-3)
    checkpoint.unpack_optimizer("optimizer.main", optimizer, tensors, meta["optimizers"]["main"])
    moment = optimizer.state[model.weight]["exp_avg"]
    assert moment.dtype == torch.float32 and moment.abs().sum() > 0


@pytest.mark.parametrize(("limit", "level"), [(250_000, 1), (150_000, 2)])
def test_with_less_room_less_is_kept_and_it_can_still_be_resumed(
    run: Path, tmp_path: Path, limit: int, level: int
) -> None:
    report = pack(run, tmp_path / "out", NONE, limit)
    assert report["generator"]["kept"] == LEVELS[level] and report["generator"]["bytes"] <= limit
    shards = list((tmp_path / "out").rglob("*.safetensors"))
    assert sum(t.numel() * t.element_size() for f in shards for t in load_file(f).values()) <= limit
    unpack(tmp_path / "out", tmp_path / "again")
    tensors, meta = read(tmp_path / "again", "generator")
    model = layer(99)
    model.load_state_dict(checkpoint.strip("generator", tensors))
    optimizer = Adam(model.parameters(), 1e-3)
    checkpoint.unpack_optimizer("optimizer.main", optimizer, tensors, meta["optimizers"]["main"])
    model(torch.ones(1, 100)).sum().backward()
    optimizer.step()
    assert optimizer.state[model.weight]["step"] == 1


def test_what_does_not_fit_stays_and_nothing_is_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgeditError, match=r"the checkpoints in run do not fit 0 MB"):
        pack(run, tmp_path / "out", NONE, 1000)
    assert not (tmp_path / "out").exists()


def test_networks_that_a_later_stage_took_over_are_stored_once_and_put_back(run: Path, tmp_path: Path) -> None:
    modules = {"encoder": layer(20), "latent": layer(21), "average": layer(22)}
    write(run, "e4e", 5, modules)
    pack(run, tmp_path / "out", frozenset({"generator"}))
    stored = {name.split(".")[0] for name in read(tmp_path / "out", "generator")[0]}
    assert stored == {"generator", "average", "encoder_encoder", "encoder_average"}
    assert unpack(tmp_path / "out", tmp_path / "again") == ["generator", "e4e"]
    tensors = read(tmp_path / "again", "generator")[0]
    for name, module in modules.items():
        assert torch.allclose(tensors[f"e4e_{name}.weight"].float(), module.weight, atol=1e-2)


def test_a_finished_stage_keeps_what_later_ones_read(run: Path, tmp_path: Path) -> None:
    write(run, "e4e", 5, {"encoder": layer(20), "latent": layer(21), "average": layer(22)})
    report = pack(run, tmp_path / "out", frozenset({"generator", "e4e"}))
    assert report["e4e"]["kept"] == "what later stages read"
    tensors = read(tmp_path / "out", "e4e")[0]
    assert {name.split(".")[0] for name in tensors} == {"average"}
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())


def test_a_run_that_has_gone_further_is_left_alone(run: Path, tmp_path: Path) -> None:
    pack(run, tmp_path / "out", NONE)
    assert unpack(tmp_path / "out", run) == []
    write(run, "generator", 11, {"generator": layer(1)})
    assert unpack(tmp_path / "out", run) == [] and read(run, "generator")[1]["step"] == 11
    write(run, "generator", 9, {"generator": layer(1)})
    assert unpack(tmp_path / "out", run) == ["generator"] and read(run, "generator")[1]["step"] == 10
