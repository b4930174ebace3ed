"""The bundle that comes with the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgedit.commands.photos import ASTRONAUT
from edgedit.editor import DEMO_BUNDLE, Editor
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.photo import open_image
from tests.edgedit.conftest import Cli

pytestmark = pytest.mark.skipif(not DEMO_BUNDLE.is_dir(), reason="edgedit/bundles/demo is not here")

DIRECTIONS = {"smile", "age", "female", "yaw"}
MEGABYTES = 28
PSNR_MARGIN = 5.0
"""dB by which one face, in a photo of another kind, may lie below the mean of the held-out faces."""


@pytest.fixture(scope="module")
def demo() -> Editor:
    return Editor.load(threads=1)


def test_it_is_whole_and_small() -> None:
    assert Bundle.load(DEMO_BUNDLE).verify() == []
    assert sum(file.stat().st_size for file in DEMO_BUNDLE.rglob("*") if file.is_file()) <= MEGABYTES * 1e6


def test_its_weights_are_half_precision() -> None:
    with (DEMO_BUNDLE / WEIGHTS_FILE).open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    types = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    assert types == {"F16"}


def test_it_says_nothing_of_the_machine_it_was_made_on() -> None:
    text = "".join((DEMO_BUNDLE / name).read_text() for name in ("manifest.json", "card.md"))
    assert str(Path(__file__).resolve().parents[2]) not in text and "/home/" not in text


def test_its_directions(demo: Editor) -> None:
    assert set(demo.directions) >= DIRECTIONS
    for direction in demo.directions.values():
        assert direction.min_strength <= 0 <= direction.max_strength
        assert direction.description and direction.source and direction.licence


def test_the_astronaut_is_reconstructed(demo: Editor) -> None:
    reached = demo.session.bundle.manifest.metrics["reconstruction"]["ours"]["psnr"]  # type: ignore[index,call-overload]
    portrait = demo.portrait(ASTRONAUT)
    error = np.mean((portrait.reconstruction.astype(float) - portrait.aligned) ** 2)
    assert 10 * np.log10(255**2 / error) > float(reached) - PSNR_MARGIN  # type: ignore[arg-type]


def test_every_direction_changes_the_face_and_stronger_changes_it_more(demo: Editor) -> None:
    portrait = demo.portrait(ASTRONAUT)
    plain = portrait.reconstruction.astype(float)
    for name in sorted(DIRECTIONS):
        direction = demo.directions[name]
        end = max(direction.min_strength, direction.max_strength, key=abs)
        half, full = (np.abs(demo.edit(portrait.inversion, {name: s}) - plain).mean() for s in (end / 2, end))
        assert 0 < half < full, name


def test_the_demo_command(cli: Cli, tmp_path: Path, demo: Editor) -> None:
    out, summary = tmp_path / "demo.png", tmp_path / "demo.json"
    done = cli("demo", "-o", out, "--threads", 1, "--json", summary)
    assert (done.status, done.err) == (0, "")
    written = json.loads(summary.read_text())
    shown = [name for name, direction in demo.directions.items() if direction.kind == "interfacegan"]
    assert written["directions"] == shown
    assert open_image(out).pixels.shape == (8 + (1 + len(shown)) * 190, 8 + 6 * 168, 3)


def test_the_commands_use_it_by_default(cli: Cli, tmp_path: Path) -> None:
    assert cli("info", "--verify").status == 0
    assert all(name in cli("directions").out for name in DIRECTIONS)
    out = tmp_path / "out.png"
    assert cli("edit", ASTRONAUT, "-d", "smile", "-s", 1, "-o", out, "--threads", 1).status == 0
    photo = open_image(ASTRONAUT).pixels
    edited = open_image(out).pixels
    assert edited.shape == photo.shape and 0 < (edited != photo).any(axis=2).mean() < 0.5
