from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from engines.bundle.mobilestylegan import LICENCE
from engines.family import FACES_1024, FACES_1024_MOBILE
from engines.packages import GENERATOR
from training.imported import Imported, read, write
from training.importers.checkpoints import Result
from training.importers.errors import CheckpointError
from training.importers.mobilestylegan import import_package
from training.networks.mobilestylegan import MobileGenerator


@pytest.fixture(scope="module")
def result() -> Result:
    if GENERATOR.installed() is None:
        pytest.skip(f"{GENERATOR} is not installed")
    return import_package()


@pytest.fixture(scope="module")
def imported(result: Result) -> Imported:
    return result.imported


def test_the_package_fills_the_familys_generator(imported: Imported, tmp_path: Path) -> None:
    assert imported.family == FACES_1024_MOBILE and imported.licence == LICENCE
    assert [source["sha256"] for source in imported.sources] == list(GENERATOR.members.values())
    generator = MobileGenerator(FACES_1024_MOBILE)
    weights = {name.removeprefix("generator."): t for name, t in imported.tensors.items() if name != "latent_avg"}
    generator.load_state_dict(weights)
    # The mean of W, from samples of the mapping: farther from the origin than from most codes.
    w = generator.requires_grad_(False).mapping(torch.randn(1000, 512, generator=torch.Generator().manual_seed(0)))
    mean = imported.tensors["latent_avg"]
    assert (w.mean(dim=0) - mean).norm() < 0.1 * (w - mean).norm(dim=1).mean()
    file = tmp_path / "generator.safetensors"
    write(file, imported)
    again = read(file)
    assert again.family == imported.family and again.tensors.keys() == imported.tensors.keys()
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in imported.tensors.items())


def test_the_mean_code_is_named_as_made(result: Result) -> None:
    (made,) = result.filled_in
    assert made.startswith("latent_avg: the mean of W over 20000 z from seed 0") and result.left_out == []
    assert [source.get("filled_in") for source in result.imported.sources] == [
        [made],
        *[None] * (len(GENERATOR.members) - 1),
    ]


@pytest.mark.parametrize(
    "family", [dataclasses.replace(FACES_1024_MOBILE, size=512), dataclasses.replace(FACES_1024_MOBILE, style_dim=256)]
)
def test_another_family_is_refused(imported: Imported, family) -> None:
    with pytest.raises(CheckpointError, match="is not a generator of the family faces-1024-mobile"):
        import_package(family=family)


def test_a_family_of_another_generator_is_refused(imported: Imported) -> None:
    with pytest.raises(CheckpointError, match=r"is not a generator of the family faces-1024$"):
        import_package(family=FACES_1024)


def test_one_package_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="one package; name its wheel or its folder"):
        import_package([tmp_path, tmp_path])
