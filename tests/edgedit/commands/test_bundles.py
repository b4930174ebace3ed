from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from edgedit.commands.exporting import random_system, spread
from edgedit.editor import Editor
from engines import packages
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.completion import generator_weights, leave_out_generator
from engines.bundle.manifest import OWN_WEIGHTS_FILE
from engines.family import FAMILIES
from tests.edgedit.conftest import Cli
from tests.engines.packaged import OWN, write_whole
from tests.export.helpers import MOBILE
from tests.export.helpers import TINY as SMALL
from training.imported import Imported
from training.imported import write as write_imported
from training.peers import create

needs_package = pytest.mark.skipif(
    packages.GENERATOR.installed() is None, reason="the package random-face is not installed"
)


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_directions(cli: Cli, bundle_path: Path, editor: Editor, tmp_path: Path) -> None:
    done = cli("directions", bundle_path, "--json", tmp_path / "d.json")
    assert done.status == 0 and done.err == ""
    for text in ("smile", "-3 .. 3", "-2 .. 2.5", "interfacegan", "changes the hair"):
        assert text in done.out
    summary = json.loads((tmp_path / "d.json").read_text())
    assert list(summary["directions"]) == list(editor.directions)
    for name, row in summary["directions"].items():
        direction = editor.directions[name]
        rows = row.pop("rows")
        assert (tuple(rows) if rows else None) == direction.rows
        assert row == {key: getattr(direction, key) for key in row}


def test_info(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    done = cli("info", bundle_path, "--verify", "--json", tmp_path / "i.json")
    assert done.status == 0 and done.err == ""
    first = "faces: method ours, family tiny-faces, 64 px"
    for text in (first, "licence CC0-1.0", "directions: smile, age, hair", "all match"):
        assert text in done.out
    summary = json.loads((tmp_path / "i.json").read_text())
    manifest = Bundle.load(bundle_path).manifest.model_dump(mode="json")
    assert {key: summary[key] for key in manifest} == manifest
    assert summary["problems"] == [] and "error" not in summary
    listed = sum((bundle_path / name).stat().st_size for name in manifest["files"])
    assert summary["bytes"] == listed


@pytest.mark.parametrize("file", [WEIGHTS_FILE, "graphs/edit.onnx", "directions/smile.safetensors", "card.md"])
def test_a_damaged_file_is_named(cli: Cli, own_bundle: Path, tmp_path: Path, file: str) -> None:
    damage(own_bundle / file)
    done = cli("info", own_bundle, "--verify", "--json", tmp_path / "i.json")
    assert done.status == 1
    assert done.error.startswith(f"faces: {file} is damaged")
    assert f"MISMATCH {file}" in done.out and "1 do not match" in done.out
    summary = json.loads((tmp_path / "i.json").read_text())
    assert summary["problems"] == [f"{file} is damaged (its digest differs)"]
    # Without --verify it only looks at the manifest.
    assert cli("info", own_bundle).status == 0


def test_every_mismatch_is_listed(cli: Cli, own_bundle: Path) -> None:
    (own_bundle / "card.md").unlink()
    (own_bundle / "notes.txt").write_text("not of the bundle")
    damage(own_bundle / WEIGHTS_FILE)
    done = cli("info", own_bundle, "--verify")
    assert done.out.count("MISMATCH") == 3 and "(and 2 more)" in done.error
    for file in ("card.md is missing", "notes.txt is not listed", f"{WEIGHTS_FILE} is damaged"):
        assert f"MISMATCH {file}" in done.out


@pytest.mark.parametrize("verb", ["info", "directions"])
def test_what_is_not_a_bundle(cli: Cli, own_bundle: Path, tmp_path: Path, verb: str) -> None:
    assert "there is no such directory" in cli(verb, tmp_path / "missing").error
    assert "it has no manifest.json" in cli(verb, tmp_path).error
    damage(own_bundle / "manifest.json")
    assert "manifest.json" in cli(verb, own_bundle).error


def test_export_of_random_weights(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, SMALL.name, SMALL)
    out = tmp_path / "bundle"
    words = ("--random", SMALL.name, "--graphs", "reconstruct", "--photos", "1", "--name", "trial", "-o", out)
    done = cli("export", *words, "--json", tmp_path / "e.json")
    assert done.status == 0, done.err
    summary = json.loads((tmp_path / "e.json").read_text())
    assert summary["family"] == SMALL.name and list(summary["verification"]["graphs"]) == ["reconstruct"]
    bundle = Bundle.load(out)
    assert bundle.name == "trial" and bundle.family == SMALL and bundle.manifest.directions == []
    assert str(tmp_path) not in (out / "manifest.json").read_text() + (out / "card.md").read_text()
    assert all(array.dtype == np.float16 for array in load_file(out / WEIGHTS_FILE).values())
    assert cli("info", out, "--verify").status == 0
    assert sorted(os.listdir(tmp_path)) == ["bundle", "e.json"]


@needs_package
def test_what_completes_a_bundle_says_so_and_where(
    cli: Cli, no_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = write_whole(tmp_path / "face", OWN | generator_weights())
    leave_out_generator(part)
    done = cli("info", part.path, "--verify")
    assert done.status == 0, done.err
    (place,) = (tmp_path / "cache" / "bundles").glob("face-*")
    assert f"completing face with the generator of the package random-face, once, in {place}\n" in done.out
    assert f", in {place}\n" in done.out and "verified 2 files: all match" in done.out
    assert "completing" not in cli("info", part.path).out
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("EDGEDIT_CACHE", str(tmp_path / "other"))
    assert cli("info", part.path).error.endswith("pip install --no-deps random-face==2021.7.21.1")


@needs_package
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_export_without_the_generator(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written holds no tensor of the generator, and is completed to what was exported and verified."""
    monkeypatch.setenv("EDGEDIT_CACHE", str(tmp_path / "cache"))
    weights, out = tmp_path / "generator.safetensors", tmp_path / "face"
    assert cli("import", "mobilestylegan", "-o", weights).status == 0
    words = ("--random", "faces-1024-mobile", "--generator", weights, "--graphs", "reconstruct", "--photos", 1)
    done = cli("export", *words, "--without-generator", "--name", "face", "-o", out)
    assert done.status == 0, done.err
    assert not (out / WEIGHTS_FILE).exists()
    own = load_file(out / OWN_WEIGHTS_FILE)
    assert not [name for name in own if name.startswith("generator.")]
    bundle = Bundle.load(out)
    whole = load_file(bundle.path / WEIGHTS_FILE)
    assert set(own) < set(whole) and all(np.array_equal(whole[name], array) for name, array in own.items())
    assert bundle.manifest.licence.startswith("Apache-2.0 as packaged; distilled from")


@torch.no_grad()
def test_light_encoders_are_spread_as_their_generator_is() -> None:
    system = random_system(MOBILE)
    generator = system.generator
    codes = generator.mapping(torch.randn(500, MOBILE.style_dim))
    system.latent_avg.copy_(codes.mean(dim=0))
    spread(system)
    inversion = system.invert(torch.rand(2, 3, *MOBILE.encoder_size) * 2 - 1)
    for w in (inversion.w, inversion.w_e):
        assert (w[0] - w[1]).norm() > 0 and ((w[:, 0] - system.latent_avg).abs() < 6 * codes.std(dim=0)).all()
    assert 0.1 < inversion.feature.std() / generator.lower(generator.broadcast(codes[:8]))[0].std() < 10


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
    peer = create("e4e", SMALL)
    weights, out = tmp_path / "e4e.safetensors", tmp_path / "bundle"
    imported = Imported(kind="e4e", family=SMALL, licence="MIT", sources=[], tensors=peer.state_dict())
    write_imported(weights, imported)
    wrong = cli("export", "--weights", weights, "--method", "fs", "-o", out)
    assert wrong.status == 1 and "holds method e4e, not fs; leave --method out" in wrong.error and not out.exists()
    done = cli("export", "--weights", weights, "--photos", "1", "-o", out, "--json", tmp_path / "e.json")
    assert done.status == 0, done.err
    summary = json.loads((tmp_path / "e.json").read_text())
    assert summary["method"] == "e4e" and set(summary["verification"]["graphs"]) == {"invert", "edit", "reconstruct"}
    bundle = Bundle.load(out)
    assert (bundle.name, bundle.method, bundle.family) == ("e4e", "e4e", SMALL)
    assert bundle.manifest.licence == peer.info.licence and str(tmp_path) not in (out / "manifest.json").read_text()
    shown = cli("info", out, "--verify")
    assert shown.status == 0 and "e4e: method e4e, family" in shown.out


def test_exports_that_are_refused(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    neither = "give either a run folder, with --data to verify with, or --random FAMILY"
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("{")
    for words, message in (
        ((), neither),
        (("run",), neither),
        (("run", "--random", "demo-64"), neither),
        (("--weights", "w.safetensors", "--random", "demo-64"), neither),
        (("run", "--data", "faces", "--method", "e4e"), "a training run is of method ours; give --weights or --random"),
        (("--random", "demo-64", "--method", "hgfi"), "unknown method 'hgfi'; "),
        (("--random", "cars-512x384", "--method", "hfgi"), "HFGI exists for faces-1024, not for cars-512x384"),
        (("--weights", tmp_path / "text.json"), "text.json"),
        (("--random", "demo-63"), "unknown model family 'demo-63'; there are "),
        (("--random", "demo-64", "--photos", "0"), "--photos must be 1 or more, got 0"),
        (("--random", "demo-64", "--graphs", "most"), "there is no graph 'most' to export; there are all, "),
        (("--random", "demo-64", "--metrics", tmp_path / "list.json"), "is not a JSON object of figures"),
        (("--random", "demo-64", "--metrics", tmp_path / "none.json"), "No such file"),
        (("--random", "demo-64", "--card", tmp_path), "Is a directory"),
        ((tmp_path / "run", "--data", tmp_path / "data"), "no checkpoint at"),
        ((tmp_path / "run", "--data", tmp_path / "data", "--recipe", "best"), "unknown recipe 'best'; there are "),
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
