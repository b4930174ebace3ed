"""Checkpoints that are sound although a tensor is missing, named otherwise, or stands in another place."""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.training.importers import official as o
from tests.training.importers.files import SMALL, contents, message, write_ada
from training.importers.checkpoints import Result, import_checkpoint
from training.importers.derived import mean_of_w
from training.importers.errors import CheckpointError

NOISES = 9
"""Of a generator of 64 pixels."""
MADE = "latent_avg: the mean of W over 100000 z from seed 0, by the mapping network of x.pt"


@pytest.fixture(scope="module")
def official() -> dict[str, dict[str, Any]]:
    return {kind: contents(kind, SMALL, o.fill)["checkpoint"] for kind in ("stylegan2", "e4e")}


def read(folder: Path, kind: str, content: dict[str, Any], **options: Any) -> Result:
    # Each in a folder of its own: what was read of zipped files stays mapped.
    path = Path(tempfile.mkdtemp(dir=folder)) / "x.pt"
    torch.save(content, path, **options)
    return import_checkpoint(kind, [path])


def same(a: Result, b: Result) -> bool:
    ours, theirs = a.imported.tensors, b.imported.tensors
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in names}


def renamed(tensors: dict[str, Tensor], prefix: str, of: str = "") -> dict[str, Tensor]:
    """With a prefix put in after `of`."""
    return {
        of + prefix + name.removeprefix(of) if name.startswith(of) else name: tensor for name, tensor in tensors.items()
    }


def check_mean(mean: Tensor, tensors: dict[str, Tensor], prefix: str = "") -> None:
    """Against the mean over other z than the importer's, from the formula of the mapping network."""
    x = torch.randn(40_000, SMALL.style, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    x = x / (x.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for layer in range(1, SMALL.mapping + 1):
        weight, bias = (tensors[f"{prefix}style.{layer}.{part}"].double() for part in ("weight", "bias"))
        x = torch.nn.functional.leaky_relu(x @ weight.T * 0.01 / SMALL.style**0.5 + bias * 0.01, 0.2) * 2**0.5
    # Five standard errors of the difference of two means; that of another network lies far outside.
    error = x.std(dim=0) * (1 / len(x) + 1 / 100_000) ** 0.5
    assert bool(((mean - x.mean(dim=0)).abs() < 5 * error).all()) and bool((mean.abs() > 10 * error).any())


def test_a_missing_mean_code_is_the_mean_of_w(official, tmp_path: Path) -> None:
    g_ema = official["stylegan2"]["g_ema"]
    # What rosinality's trainer saves.
    trained = {"g": g_ema, "d": {"a.weight": torch.ones(1)}, "g_ema": g_ema, "args": argparse.Namespace(size=64)}
    trained |= {"g_optim": {"state": {}, "param_groups": []}, "d_optim": {}, "ada_aug_p": 0.3}
    result = read(tmp_path, "stylegan2", trained)
    mean = result.imported.tensors["latent_avg"]
    check_mean(mean, g_ema)
    assert result.filled_in == [MADE] == result.imported.sources[0]["filled_in"]
    assert ("g", "training copy of the generator") in {(item.name, item.why) for _, item in result.left_out}
    assert same(read(tmp_path, "stylegan2", trained), result)
    # A state dict alone, BasicSR's averaged network, and a mean that is None are the same.
    for content in (dict(g_ema), {"params_ema": g_ema, "params": g_ema}, {"g_ema": g_ema, "latent_avg": None}):
        assert same(read(tmp_path, "stylegan2", content), result)
    ada = o.fill(o.ada(SMALL))
    del ada["mapping.w_avg"]
    result = import_checkpoint("stylegan2-ada", [write_ada(tmp_path / "x.pkl", ada)])
    tensors = {name.removeprefix("generator."): tensor for name, tensor in result.imported.tensors.items()}
    check_mean(tensors["latent_avg"], tensors)


def test_without_a_mapping_network_there_is_no_mean(official, tmp_path: Path) -> None:
    g_ema = official["stylegan2"]["g_ema"]
    for change, expected in (
        ({"style.1.weight": None, "style.2.weight": None}, "no latent_avg, the mean code, and no mapping network"),
        ({"style.2.bias": None}, "no mapping network to take it from: see generator.style.2.weight"),
        ({"style.2.weight": torch.ones(3, 5)}, "see generator.style.2.weight"),
        ({"style.1.weight": torch.zeros(1).expand(10_000, 10_000)}, "see generator.style.1.weight"),
        ({"style.1.weight": torch.eye(32).to_sparse()}, "see generator.style.1.weight"),
    ):
        tensors = {name: tensor for name, tensor in (g_ema | change).items() if tensor is not None}
        torch.save({"g_ema": tensors}, tmp_path / "x.pt")
        assert expected in message("stylegan2", tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="no mapping network"):
        mean_of_w({}, "decoder.", "here")


def test_an_encoder_of_whole_codes_has_no_mean(official, tmp_path: Path) -> None:
    e4e = official["e4e"]
    whole = {"opts": {"encoder_type": "Encoder4Editing", "start_from_latent_avg": False}}
    for content in (without(e4e, "latent_avg") | whole, e4e | whole | {"latent_avg": None}):
        result = read(tmp_path, "e4e", content)
        assert result.imported.tensors["latent_avg"].shape == (10, 32)
        assert not result.imported.tensors["latent_avg"].any()
        assert result.filled_in == ["latent_avg: zeros, since start_from_latent_avg is False"]
    # An encoder of offsets starts from the mean of W, as its trainer does.
    state = e4e["state_dict"] | {"latent_avg": None}
    result = read(tmp_path, "e4e", without(e4e, "latent_avg") | {"state_dict": state})
    check_mean(result.imported.tensors["latent_avg"][3], e4e["state_dict"], "decoder.")
    assert result.filled_in == [MADE]


@pytest.mark.parametrize(
    ("kind", "role", "made"),
    [
        ("fs", "generator", "by the mapping network of generator.pt"),
        ("hfgi", "checkpoint", "by the mapping network of checkpoint.pt"),
        ("clcae", "mean code", "by the mapping network of mean code.pt"),
        ("styleres", "checkpoint", "latent_avg: the generator's own mapping.w_avg"),
        ("sdic", "checkpoint", "by the mapping network of checkpoint.pt"),
        ("sfe", "generator", "by the mapping network of generator.pt"),
        ("hyperstyle", "checkpoint", "latent_avg: that of W encoder.pt"),
    ],
)
def test_every_method_finds_a_mean(tmp_path: Path, kind: str, role: str, made: str) -> None:
    files = contents(kind, SMALL, o.fill)
    del files[role]["latent_avg"]
    paths = []
    for other, content in files.items():
        paths.append(tmp_path / f"{other}.pt")
        torch.save(content, paths[-1])
    if kind == "clcae":
        Image.new("RGB", (SMALL.input, SMALL.input)).save(tmp_path / "mean.png")
        paths.append(tmp_path / "mean.png")
    result = import_checkpoint(kind, paths)
    assert len(result.filled_in) == 1 and made in result.filled_in[0]
    mean = result.imported.tensors["latent_avg"]
    assert bool((mean == mean[0]).all()) and mean.any()


@pytest.mark.parametrize("name", ["latent_avg", "module.latent_avg", "decoder.latent_avg"])
def test_a_mean_that_is_a_buffer_or_an_array(official, tmp_path: Path, name: str) -> None:
    e4e = official["e4e"]
    state = e4e["state_dict"] | {name: e4e["latent_avg"]}
    expected = read(tmp_path, "e4e", e4e)
    assert not expected.filled_in
    assert same(read(tmp_path, "e4e", without(e4e, "latent_avg") | {"state_dict": state}), expected)
    both = read(tmp_path, "e4e", e4e | {"state_dict": state | {name: e4e["latent_avg"] + 1}})
    assert same(both, expected)
    assert "its copies in other places" in {item.why for _, item in both.left_out}
    assert same(read(tmp_path, "e4e", e4e | {"latent_avg": e4e["latent_avg"].numpy()}), expected)
    with pytest.raises(CheckpointError, match="latent_avg is a list, not a tensor"):
        read(tmp_path, "e4e", e4e | {"latent_avg": [0.5]})


def test_missing_noise_and_kernels_are_filled_in(official, tmp_path: Path) -> None:
    generator = official["stylegan2"]
    whole = read(tmp_path, "stylegan2", generator)
    bare = {n: t for n, t in generator["g_ema"].items() if not n.startswith("noises.") and not n.endswith("kernel")}
    result = read(tmp_path, "stylegan2", generator | {"g_ema": bare})
    assert result.filled_in == ["FIR kernels: 8 of [1, 3, 3, 1]", f"noise images: {NOISES} drawn from fixed seeds"]
    again = read(tmp_path, "stylegan2", generator | {"g_ema": bare})
    assert same(again, result)
    for name, tensor in whole.imported.tensors.items():
        made = result.imported.tensors[name]
        assert made.shape == tensor.shape
        assert torch.equal(made, tensor) != (".noises." in name), name
    noise = torch.cat([t.flatten() for n, t in result.imported.tensors.items() if ".noises." in n])
    assert abs(float(noise.mean())) < 0.03 and abs(float(noise.std()) - 1) < 0.03
    # Any other missing tensor is refused as before.
    del bare["convs.2.noise.weight"]
    torch.save(generator | {"g_ema": bare}, tmp_path / "x.pt")
    assert "1 missing tensor (generator.convs.2.noise.weight)" in message("stylegan2", tmp_path / "x.pt")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_taken_off(official, tmp_path: Path, prefix: str) -> None:
    generator, e4e = official["stylegan2"], official["e4e"]
    expected = read(tmp_path, "stylegan2", generator)
    assert same(read(tmp_path, "stylegan2", generator | {"g_ema": renamed(generator["g_ema"], prefix)}), expected)
    part = renamed(generator["g_ema"], prefix, "style.")
    assert same(read(tmp_path, "stylegan2", generator | {"g_ema": part}), expected)
    expected = read(tmp_path, "e4e", e4e)
    state = e4e["state_dict"]
    for wrapped in (
        renamed(state, prefix),
        renamed(state, prefix, "encoder."),
        renamed(state, prefix, "decoder.convs."),
    ):
        assert same(read(tmp_path, "e4e", e4e | {"state_dict": wrapped}), expected)
    # A whole model's state dict at the top of the file.
    assert same(read(tmp_path, "e4e", renamed(state | {"latent_avg": e4e["latent_avg"]}, prefix)), expected)
    twice = state | renamed({"encoder.latlayer1.bias": state["encoder.latlayer1.bias"]}, prefix)
    torch.save(e4e | {"state_dict": twice}, tmp_path / "x.pt")
    assert "holds encoder.latlayer1.bias twice, once with a prefix" in message("e4e", tmp_path / "x.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_paths_and_arrays_among_the_options(official, tmp_path: Path, zipped: bool) -> None:
    options = official["e4e"]["opts"] | {
        "exp_dir": tmp_path,
        "pure": pathlib.PureWindowsPath("C:/x"),
        "weights": np.arange(3.0),
        "rate": np.float64(0.1),
        "kind": np.float32,
    }
    expected = read(tmp_path, "e4e", official["e4e"])
    for opts in (options, argparse.Namespace(**options)):
        content = official["e4e"] | {"opts": opts, "best_val_loss": np.float64(0.1), "losses": np.ones(3)}
        assert same(read(tmp_path, "e4e", content, _use_new_zipfile_serialization=zipped), expected)
