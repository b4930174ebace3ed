"""The bundle that comes with the package, whole: completed from the installed generator, run, drawn, and its size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file

from edgedit.demo import ASTRONAUT
from edgedit.editor import PORTRAIT_BUNDLE, Editor, Portrait
from edgedit.sheet import CELL, GAP, LABEL, LARGE, WIDTH
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.manifest import OWN_WEIGHTS_FILE
from engines.packages import GENERATOR
from engines.photo import open_image
from tests.edgedit.conftest import Cli

if not PORTRAIT_BUNDLE.is_dir():
    pytest.skip("edgedit/bundles/portrait is not here", allow_module_level=True)
if GENERATOR.installed() is None:
    pytest.skip(f"{GENERATOR} is not installed", allow_module_level=True)

DIRECTIONS = {"smile", "age", "glasses", "yaw"}
PSNR_MARGIN = 5.0
"""dB by which one face, in a photo of another kind, may lie below the mean of the held-out faces."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEDIT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def portrait() -> Editor:
    return Editor.load(threads=1)


@pytest.fixture(scope="module")
def astronaut(portrait: Editor) -> Portrait:
    return portrait.portrait(ASTRONAUT)


def test_it_is_small_and_holds_nothing_of_the_generator() -> None:
    own = PORTRAIT_BUNDLE / OWN_WEIGHTS_FILE
    assert not (PORTRAIT_BUNDLE / WEIGHTS_FILE).exists() and own.stat().st_size <= 24e6
    assert sum(file.stat().st_size for file in PORTRAIT_BUNDLE.rglob("*") if file.is_file()) <= 27e6
    tensors = load_file(own)
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}
    assert not [name for name in tensors if name.startswith("generator.")]


def test_it_is_completed(cache: Path) -> None:
    bundle = Bundle.load(PORTRAIT_BUNDLE)
    assert bundle.verify() == [] and bundle.path.parent == cache / "bundles"
    tensors = load(bundle.read(WEIGHTS_FILE))
    generator = {name: tensor for name, tensor in tensors.items() if name.startswith("generator.")}
    assert sum(tensor.size for tensor in generator.values()) > 9e6 and len(generator) < len(tensors)


def test_it_says_where_it_comes_from_and_nothing_of_a_machine() -> None:
    manifest, card = ((PORTRAIT_BUNDLE / name).read_text() for name in ("manifest.json", "card.md"))
    for path in (str(Path(__file__).resolve().parents[2]), "/home/", "/tmp/", "/work/"):
        assert path not in manifest + card
    assert "random-face" in card and "research and evaluation" in card


def test_its_directions(portrait: Editor) -> None:
    assert set(portrait.directions) >= DIRECTIONS
    for direction in portrait.directions.values():
        assert direction.min_strength <= 0 <= direction.max_strength
        assert direction.description and direction.source and direction.licence


def test_the_astronaut_is_reconstructed(portrait: Editor, astronaut: Portrait) -> None:
    """At the size that the encoders see, a quarter of the picture's."""
    reached = portrait.session.bundle.manifest.metrics["reconstruction"]["ours"]["psnr"]  # type: ignore[index,call-overload]
    change = astronaut.reconstruction.astype(float) - astronaut.aligned
    side = portrait.family.encoder_size[0]
    blocks = change.reshape(side, portrait.family.size // side, side, -1, 3).mean(axis=(1, 3))
    assert 10 * np.log10(255**2 / np.square(blocks).mean()) > float(reached) - PSNR_MARGIN  # type: ignore[arg-type]


def test_every_direction_changes_the_face_and_stronger_changes_it_more(portrait: Editor, astronaut: Portrait) -> None:
    plain = astronaut.reconstruction.astype(float)
    for name in sorted(DIRECTIONS):
        direction = portrait.directions[name]
        end = max(direction.min_strength, direction.max_strength, key=abs)
        half, full = (np.abs(portrait.edit(astronaut.inversion, {name: s}) - plain).mean() for s in (end / 2, end))
        assert 0 < half < full, name


def test_the_demo_command(cli: Cli, tmp_path: Path, portrait: Editor) -> None:
    out, summary = tmp_path / "demo.jpg", tmp_path / "demo.json"
    done = cli("demo", "-o", out, "--threads", 1, "--json", summary)
    assert (done.status, done.err) == (0, "")
    names = json.loads(summary.read_text())["directions"]
    assert names[:4] == ["smile", "age", "glasses", "yaw"]
    height = GAP + (1 + len(names)) * (CELL + LABEL + GAP) + 2 * (LARGE + LABEL + GAP)
    assert open_image(out).pixels.shape == (height, WIDTH, 3) and out.stat().st_size < 8e6


def test_the_commands_use_it_by_default(cli: Cli, tmp_path: Path) -> None:
    assert cli("info", "--verify").status == 0
    assert all(name in cli("directions").out for name in DIRECTIONS)
    out = tmp_path / "out.png"
    assert cli("edit", ASTRONAUT, "-d", "smile", "-s", 1, "-o", out, "--threads", 1).status == 0
    photo = open_image(ASTRONAUT).pixels
    edited = open_image(out).pixels
    assert edited.shape == photo.shape and 0 < (edited != photo).any(axis=2).mean() < 0.5
