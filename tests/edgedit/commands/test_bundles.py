from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgedit.editor import Editor
from engines import packages
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.completion import generator_weights, leave_out_generator
from tests.edgedit.conftest import Cli
from tests.engines.packaged import OWN, write_whole

needs_package = pytest.mark.skipif(
    packages.GENERATOR.installed() is None, reason="the package random-face is not installed"
)


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_directions(cli: Cli, bundle_path: Path, editor: Editor, tmp_path: Path) -> None:
    done = cli("directions", "-b", bundle_path, "--json", tmp_path / "d.json")
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
    done = cli("info", "-b", bundle_path, "--verify", "--json", tmp_path / "i.json")
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
    done = cli("info", "-b", own_bundle, "--verify", "--json", tmp_path / "i.json")
    assert done.status == 1
    assert done.error.startswith(f"faces: {file} is damaged")
    assert f"MISMATCH {file}" in done.out and "1 do not match" in done.out
    summary = json.loads((tmp_path / "i.json").read_text())
    assert summary["problems"] == [f"{file} is damaged (its digest differs)"]
    # Without --verify it only looks at the manifest.
    assert cli("info", "-b", own_bundle).status == 0


def test_every_mismatch_is_listed(cli: Cli, own_bundle: Path) -> None:
    (own_bundle / "card.md").unlink()
    (own_bundle / "notes.txt").write_text("not of the bundle")
    damage(own_bundle / WEIGHTS_FILE)
    done = cli("info", "-b", own_bundle, "--verify")
    assert done.out.count("MISMATCH") == 3 and "(and 2 more)" in done.error
    for file in ("card.md is missing", "notes.txt is not listed", f"{WEIGHTS_FILE} is damaged"):
        assert f"MISMATCH {file}" in done.out


@pytest.mark.parametrize("verb", ["info", "directions"])
def test_what_is_not_a_bundle(cli: Cli, own_bundle: Path, tmp_path: Path, verb: str) -> None:
    assert "there is no such directory" in cli(verb, "-b", tmp_path / "missing").error
    assert "it has no manifest.json" in cli(verb, "-b", tmp_path).error
    damage(own_bundle / "manifest.json")
    assert "manifest.json" in cli(verb, "-b", own_bundle).error


@needs_package
def test_what_completes_a_bundle_says_so_and_where(
    cli: Cli, no_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = write_whole(tmp_path / "face", OWN | generator_weights())
    leave_out_generator(part)
    done = cli("info", "-b", part.path, "--verify")
    assert done.status == 0, done.err
    (place,) = (tmp_path / "cache" / "bundles").glob("face-*")
    assert f"completing face with the generator of the package random-face, once, in {place}\n" in done.out
    assert f", in {place}\n" in done.out and "verified 2 files: all match" in done.out
    assert "completing" not in cli("info", "-b", part.path).out
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("EDGEDIT_CACHE", str(tmp_path / "other"))
    assert cli("info", "-b", part.path).error.endswith("pip install --no-deps random-face==2021.7.21.1")
