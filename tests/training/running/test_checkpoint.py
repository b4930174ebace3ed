from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from pytorch_optimizer import Ranger
from torch import nn

from training.running import checkpoint


def _tensors(value: float, count: int = 3) -> dict[str, torch.Tensor]:
    return {f"net.t{i}": torch.full((4, 5), value + i) for i in range(count)}


def test_round_trip(tmp_path):
    tensors = {
        "a": torch.randn(3, 4, 5, 6).contiguous(memory_format=torch.channels_last),
        "b": torch.arange(4),
        "c": torch.randn(2, 3).T,
        "d": torch.randn(5).bfloat16(),
        "e": torch.tensor(7.0),
    }
    meta = {"stage": "x", "step": 3, "nested": {"list": [1, 2.5, None]}}
    checkpoint.save(tmp_path / "c", tensors, meta)
    loaded, loaded_meta = checkpoint.load(tmp_path / "c")
    assert loaded_meta == meta
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)


def test_tensors_that_share_memory(tmp_path):
    base = torch.randn(6)
    checkpoint.save(tmp_path / "c", {"whole": base, "part": base[2:4]}, {})
    assert torch.equal(checkpoint.load(tmp_path / "c")[0]["part"], base[2:4])


def test_shards_stay_below_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 4000)
    tensors = {f"t{i:02d}": torch.randn(100 + 60 * i) for i in range(12)}
    checkpoint.save(tmp_path / "c", tensors, {})
    shards = sorted((tmp_path / "c").glob("shard-*.safetensors"))
    assert [shard.name for shard in shards] == [f"shard-{i:03d}.safetensors" for i in range(len(shards))]
    assert len(shards) > 3
    # safetensors adds a header to the tensors' bytes.
    assert max(shard.stat().st_size for shard in shards) < 4000 + 1000
    loaded, _ = checkpoint.load(tmp_path / "c")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert loaded.keys() == tensors.keys()


def test_limit_of_a_shard_fits_a_file_of_16_mib(tmp_path):
    tensors = {f"t{i}": torch.zeros(1_500_000) for i in range(6)}
    checkpoint.save(tmp_path / "c", tensors, {})
    sizes = [shard.stat().st_size for shard in (tmp_path / "c").glob("shard-*")]
    assert len(sizes) == 3 and max(sizes) < 16 * 2**20


def test_a_new_checkpoint_replaces_all_of_the_old(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 100)
    checkpoint.save(tmp_path / "c", _tensors(0.0, 5), {"step": 1})
    checkpoint.save(tmp_path / "c", _tensors(10.0, 2), {"step": 2})
    tensors, meta = checkpoint.load(tmp_path / "c")
    assert meta == {"step": 2} and set(tensors) == {"net.t0", "net.t1"}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("failing", ["shard", "meta"])
def test_a_failed_save_leaves_the_old_one(tmp_path, monkeypatch, failing):
    checkpoint.save(tmp_path / "c", _tensors(1.0), {"step": 1})
    if failing == "shard":

        def full(*_):
            raise OSError("no space left on device")

        monkeypatch.setattr(checkpoint, "save_file", full)
        meta: dict = {"step": 2}
    else:
        meta = {"step": object()}
    with pytest.raises((OSError, TypeError)):
        checkpoint.save(tmp_path / "c", _tensors(5.0), meta)
    monkeypatch.undo()
    tensors, meta = checkpoint.load(tmp_path / "c")
    assert meta == {"step": 1} and torch.equal(tensors["net.t0"], torch.ones(4, 5))
    checkpoint.save(tmp_path / "c", _tensors(6.0), {"step": 3})
    assert checkpoint.load(tmp_path / "c")[1] == {"step": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_save_that_ends_between_its_renames(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "c", _tensors(1.0), {"step": 1})
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if target == tmp_path / "c":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "c", _tensors(5.0), {"step": 2})
    monkeypatch.undo()
    tensors, meta = checkpoint.load(tmp_path / "c")
    assert meta == {"step": 1} and torch.equal(tensors["net.t0"], torch.ones(4, 5))
    checkpoint.save(tmp_path / "c", _tensors(6.0), {"step": 3})
    assert checkpoint.load(tmp_path / "c")[1] == {"step": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_truncated_shard(tmp_path, keep):
    checkpoint.save(tmp_path / "c", _tensors(1.0), {"step": 1})
    shard = tmp_path / "c" / "shard-000.safetensors"
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(ValueError, match="is damaged") as caught:
        checkpoint.load(tmp_path / "c")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "c") in str(caught.value)


def test_damaged_meta(tmp_path):
    checkpoint.save(tmp_path / "c", _tensors(1.0), {"step": 1})
    (tmp_path / "c" / "meta.json").write_text('{"step": ')
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load(tmp_path / "c")


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "c")
    checkpoint.save(tmp_path / "c", _tensors(1.0), {})
    shutil.rmtree(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "c")


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6 * 9, 2))
    return net.to(memory_format=torch.channels_last)


def _train(net: nn.Module, optimizer: torch.optim.Optimizer, first: int, end: int) -> None:
    for step in range(first, end):
        torch.manual_seed(step)
        optimizer.zero_grad(set_to_none=True)
        net(torch.randn(4, 3, 5, 5)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.Adam(parameters, 1e-2, betas=(0.0, 0.99)),
        lambda parameters: torch.optim.SGD(parameters, 1e-2, momentum=0.9),
        lambda parameters: Ranger(parameters, lr=1e-2),
    ],
    ids=["adam", "sgd", "ranger"],
)
# Ranger adapts from its sixth step on and looks ahead every sixth: both lie on either side of a cut.
@pytest.mark.parametrize("cut", [1, 5, 6, 9])
def test_optimizer_state_goes_on_exactly(tmp_path, make, cut):
    straight = _net()
    optimizer = make(straight.parameters())
    _train(straight, optimizer, 0, 14)

    net = _net()
    optimizer = make(net.parameters())
    _train(net, optimizer, 0, cut)
    tensors, packed = checkpoint.pack_optimizer("optimizer.o", optimizer)
    checkpoint.save(tmp_path / "c", tensors | checkpoint.module_tensors("net", net), {"o": packed})

    tensors, meta = checkpoint.load(tmp_path / "c")
    resumed = _net()
    resumed.load_state_dict(checkpoint.strip("net", tensors))
    optimizer = make(resumed.parameters())
    checkpoint.unpack_optimizer("optimizer.o", optimizer, tensors, meta["o"])
    _train(resumed, optimizer, cut, 14)
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_strip():
    tensors = checkpoint.module_tensors("a.b", nn.Linear(2, 3))
    tensors |= checkpoint.module_tensors("a.bc", nn.Linear(1, 1))
    assert set(checkpoint.strip("a.b", tensors)) == {"weight", "bias"}
    assert checkpoint.strip("a.b", tensors)["weight"].shape == (3, 2)
    with pytest.raises(ValueError, match=r"no tensors named x\.\*"):
        checkpoint.strip("x", tensors)
