from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from engines import packages
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.manifest import OWN_WEIGHTS_FILE
from engines.family import FAMILIES
from tests.edgedit.conftest import Cli
from tests.export.helpers import TINY as SMALL
from training.imported import Imported
from training.imported import write as write_imported
from training.methods import create

needs_package = pytest.mark.skipif(
    packages.GENERATOR.installed() is None, reason="the package random-face is not installed"
)


def test_export_of_random_weights(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, SMALL.name, SMALL)
    out = tmp_path / "bundle"
    words = ("--random", SMALL.name, "--graph", "reconstruct", "--max-faces", "1", "--name", "trial", "-o", out)
    done = cli("export", *words, "--json", tmp_path / "e.json")
    assert done.status == 0, done.err
    summary = json.loads((tmp_path / "e.json").read_text())
    assert summary["family"] == SMALL.name and list(summary["verification"]["graphs"]) == ["reconstruct"]
    bundle = Bundle.load(out)
    assert bundle.name == "trial" and bundle.family == SMALL and bundle.manifest.directions == []
    assert str(tmp_path) not in (out / "manifest.json").read_text() + (out / "card.md").read_text()
    assert all(array.dtype == np.float16 for array in load_file(out / WEIGHTS_FILE).values())
    assert cli("info", "-b", out, "--verify").status == 0
    assert sorted(os.listdir(tmp_path)) == ["bundle", "e.json"]


@needs_package
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_export_without_the_generator(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written holds no tensor of the generator, and is completed to what was exported and verified."""
    monkeypatch.setenv("EDGEDIT_CACHE", str(tmp_path / "cache"))
    weights, out = tmp_path / "generator.safetensors", tmp_path / "face"
    assert cli("import", "weights", "mobilestylegan", "-o", weights).status == 0
    words = ("--random", "faces-1024-mobile", "--generator", weights, "--graph", "reconstruct", "--max-faces", 1)
    done = cli("export", *words, "--without-generator", "--name", "face", "-o", out)
    assert done.status == 0, done.err
    assert not (out / WEIGHTS_FILE).exists()
    own = load_file(out / OWN_WEIGHTS_FILE)
    assert not [name for name in own if name.startswith("generator.")]
    bundle = Bundle.load(out)
    whole = load_file(bundle.path / WEIGHTS_FILE)
    assert set(own) < set(whole) and all(np.array_equal(whole[name], array) for name, array in own.items())
    assert bundle.manifest.licence.startswith("Apache-2.0 as packaged; distilled from")


def test_an_export_that_could_not_be_completed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, SMALL.name, SMALL)
    done = cli("export", "--random", SMALL.name, "--without-generator", "-o", tmp_path / "bundle")
    assert done.status == 1 and os.listdir(tmp_path) == []
    assert "random-face" in done.error


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_export_of_imported_weights(cli: Cli, tmp_path: Path) -> None:
    """`edgedit export --weights`: the method and the licence are those of the file."""
    torch.manual_seed(0)
    method = create("e4e", SMALL)
    weights, out = tmp_path / "e4e.safetensors", tmp_path / "bundle"
    imported = Imported(kind="e4e", family=SMALL, licence="MIT", sources=[], tensors=method.state_dict())
    write_imported(weights, imported)
    wrong = cli("export", "--weights", weights, "--method", "fs", "-o", out)
    assert wrong.status == 1 and "holds method e4e, not fs; leave --method out" in wrong.error and not out.exists()
    done = cli("export", "--weights", weights, "--max-faces", "1", "-o", out, "--json", tmp_path / "e.json")
    assert done.status == 0, done.err
    summary = json.loads((tmp_path / "e.json").read_text())
    assert summary["method"] == "e4e" and set(summary["verification"]["graphs"]) == {"invert", "edit", "reconstruct"}
    bundle = Bundle.load(out)
    assert (bundle.name, bundle.method, bundle.family) == ("e4e", "e4e", SMALL)
    assert bundle.manifest.licence == method.info.licence and str(tmp_path) not in (out / "manifest.json").read_text()
    shown = cli("info", "-b", out, "--verify")
    assert shown.status == 0 and "e4e: method e4e, family" in shown.out


def test_exports_that_are_refused(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    neither = "give either a training run with --run, with --faces to verify with, or --random FAMILY"
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("{")
    for words, message in (
        ((), neither),
        (("--run", "run"), neither),
        (("--run", "run", "--random", "demo-64"), neither),
        (("--weights", "w.safetensors", "--random", "demo-64"), neither),
        (
            ("--run", "run", "--faces", "faces", "--method", "e4e"),
            "a training run is of method ours; give --weights or --random",
        ),
        (("--random", "demo-64", "--method", "hgfi"), "unknown method 'hgfi'; "),
        (("--random", "cars-512x384", "--method", "hfgi"), "HFGI exists for faces-1024, not for cars-512x384"),
        (("--weights", tmp_path / "text.json"), "text.json"),
        (("--random", "demo-63"), "unknown model family 'demo-63'; there are "),
        (("--random", "demo-64", "--max-faces", "0"), "--max-faces must be 1 or more, got 0"),
        (("--random", "demo-64", "--graph", "most"), "there is no graph 'most' to export; there are all, "),
        (("--random", "demo-64", "--metrics", tmp_path / "list.json"), "is not a JSON object of figures"),
        (("--random", "demo-64", "--metrics", tmp_path / "none.json"), "No such file"),
        (("--random", "demo-64", "--card", tmp_path), "Is a directory"),
        (("--run", tmp_path / "run", "--faces", tmp_path / "data", "--recipe", "demo-64"), "no checkpoint at"),
        (
            ("--run", tmp_path / "run", "--faces", tmp_path / "data"),
            "the recipe for faces-1024-mobile trains no generator",
        ),
        (
            ("--run", tmp_path / "run", "--faces", tmp_path / "data", "--recipe", "best"),
            "unknown recipe 'best'; there are ",
        ),
    ):
        done = cli("export", *words, "-o", out)
        assert done.status == 1 and message in done.error, words
        assert not out.exists()
    out.mkdir()
    (out / "keep.txt").write_text("mine")
    done = cli("export", "--random", "demo-64", "-o", out)
    assert "is not a bundle; give another place" in done.error
    assert os.listdir(out) == ["keep.txt"]
    assert sorted(os.listdir(tmp_path)) == ["bundle", "list.json", "text.json"]
