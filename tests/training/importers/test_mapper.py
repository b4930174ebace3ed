from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engines.family import FACES_1024, ModelFamily
from tests.training.networks.conftest import TINY
from training.importers.errors import CheckpointError
from training.importers.mapper import AboutMapper, import_mapper, load_mapper, mapper_bytes, rows_of
from training.importers.opening import open_checkpoint
from training.networks.mapper import mapper_delta

OFFICIAL = {"coarse": "course_mapping", "medium": "medium_mapping", "fine": "fine_mapping"}


def state(levels: tuple[str, ...], width: int = TINY.style_dim) -> dict[str, Tensor]:
    """In the official layout: the mapper beside some of the generator."""
    source = torch.Generator().manual_seed(0)
    tensors = {"decoder.input.input": torch.randn(1, 4, 4, 4), "decoder.style.1.weight": torch.randn(4, 4)}
    for level in levels:
        for layer in range(1, 5):
            name = f"mapper.{OFFICIAL[level]}.mapping.{layer}"
            tensors[f"{name}.weight"] = torch.randn(width, width, generator=source) * 100
            tensors[f"{name}.bias"] = torch.randn(width, generator=source) * 100
    return tensors


def read(path: Path, tensors: dict[str, Any], family: ModelFamily = TINY) -> Any:
    torch.save({"state_dict": tensors, "opts": {"mapper_type": "LevelsMapper", "lambda": 0.1}}, path)
    return import_mapper(open_checkpoint(path), family)


@pytest.mark.parametrize("levels", [("coarse", "medium"), ("coarse", "medium", "fine")])
def test_the_official_layout_is_read_and_survives_its_file(tmp_path: Path, levels: tuple[str, ...]) -> None:
    tensors = state(levels)
    mapper = read(tmp_path / "afro.pt", tensors)
    assert tuple(mapper.levels) == levels and not mapper.training
    for level in levels:
        for layer in range(1, 5):
            own = mapper.levels[level][layer]
            official = f"mapper.{OFFICIAL[level]}.mapping.{layer}"
            assert torch.equal(own.weight, tensors[f"{official}.weight"])
            assert torch.equal(own.bias, tensors[f"{official}.bias"])
    about = AboutMapper(
        name="afro", levels=levels, style_dim=TINY.style_dim, description="d", source="s", licence="MIT",
        min_strength=0.0, max_strength=0.1, units="u",
    )  # fmt: skip
    (tmp_path / "afro.safetensors").write_bytes(mapper_bytes(mapper, about))
    again, told = load_mapper(tmp_path / "afro.safetensors")
    code = np.random.default_rng(0).normal(size=(TINY.w_rows, TINY.style_dim)).astype(np.float32)
    assert told == about and np.array_equal(mapper_delta(again, code), mapper_delta(mapper, code))
    assert rows_of(("coarse", "fine"), FACES_1024) == "0 to 3, 8 to 17"


@pytest.mark.parametrize("prefix", ["module.", "mapper._orig_mod."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, prefix: str) -> None:
    tensors = state(("fine",))
    part = "mapper." if prefix.startswith("mapper.") else ""
    wrapped = {
        prefix + name.removeprefix(part) if name.startswith(part) else name: tensor for name, tensor in tensors.items()
    }
    expected = read(tmp_path / "a.pt", tensors).state_dict()
    found = read(tmp_path / "b.pt", wrapped).state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_is_missing_or_misshaped_is_named(tmp_path: Path) -> None:
    whole = state(("coarse", "medium"))
    name = "mapper.course_mapping.mapping.2.bias"
    for change, message in (
        ({name: None}, f"misses {name} and is not"),
        (
            {"mapper.course_mapping.mapping.5.bias": torch.ones(3)},
            "has an unexpected mapper.course_mapping.mapping.5.bias",
        ),
        ({name: torch.ones(5)}, rf"{name} is \(5,\); family tiny takes \(12,\)"),
        ({name: "text"}, f"{name} is str"),
        ({name: torch.full((12,), torch.nan)}, f"{name} is not finite"),
        ({"mapper.mapping.mapping.1.weight": torch.ones(12, 12)}, "is a SingleMapper"),
    ):
        tensors = {key: value for key, value in (whole | change).items() if value is not None}
        with pytest.raises(CheckpointError, match=message):
            read(tmp_path / "x.pt", tensors)
    with pytest.raises(
        CheckpointError, match=r"is \(12, 12\); family faces-1024 takes \(512, 512\)|is \(12,\); family"
    ):
        read(tmp_path / "x.pt", whole, FACES_1024)
    with pytest.raises(CheckpointError, match="none of its tensors begins with mapper"):
        read(tmp_path / "x.pt", {"decoder.style.1.weight": torch.ones(2)})


def test_an_exploit_is_not_run(tmp_path: Path) -> None:
    class Exploit:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    with pytest.raises(CheckpointError, match="refused"):
        read(tmp_path / "x.pt", state(("fine",)) | {"mapper.more": Exploit()})
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_mapper_of_ours(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is not a latent mapper of edgedit's"):
        load_mapper(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_mapper(tmp_path / "missing")
