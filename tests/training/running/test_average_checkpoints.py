from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.running import checkpoint
from training.running.average_checkpoints import mean


def _save(folder: Path, value: float, *, stage: str = "encoder", width: int = 3) -> None:
    tensors = {
        "encoder.weight": torch.full((width,), value),
        "average.module.weight": torch.full((width,), value),
        "average.module.steps": torch.tensor(int(value)),
        "generator_average.module.weight": torch.full((2,), 10 * value, dtype=torch.bfloat16),
    }
    checkpoint.save(folder, tensors, {"stage": stage, "step": int(value), "config": {"family": {"name": "tiny"}}})


def test_averaged_networks_are_mixed_and_the_rest_is_the_last_ones(tmp_path):
    for name, value in (("a", 1.0), ("b", 5.0)):
        _save(tmp_path / name, value)
    assert mean([(tmp_path / "a", 0.25), (tmp_path / "b", 0.75)], tmp_path / "b") == 2
    tensors, meta = checkpoint.load(tmp_path / "b")
    assert tensors["average.module.weight"].tolist() == [4.0] * 3
    assert tensors["generator_average.module.weight"].tolist() == [40.0] * 2
    assert tensors["generator_average.module.weight"].dtype == torch.bfloat16
    assert tensors["encoder.weight"].tolist() == [5.0] * 3 and tensors["average.module.steps"] == 5
    assert meta["step"] == 5


@pytest.mark.parametrize(
    ("other", "shares", "message"),
    [
        ({"stage": "e4e"}, (0.5, 0.5), "a is of another stage or family than"),
        ({"width": 4}, (0.5, 0.5), "a lacks average.module.weight, or has it in another shape"),
        ({}, (0.5, 0.6), "do not sum to 1"),
    ],
)
def test_what_cannot_be_mixed(tmp_path, other, shares, message):
    _save(tmp_path / "a", 1.0, **other)
    _save(tmp_path / "b", 2.0)
    with pytest.raises(ValueError, match=message):
        mean([(tmp_path / "a", shares[0]), (tmp_path / "b", shares[1])], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_what_is_wrong_in_one_line(tmp_path):
    words = [
        sys.executable,
        "-m",
        "training.running.average_checkpoints",
        "nothing:1.0",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr == "error: no checkpoint at nothing\n"
