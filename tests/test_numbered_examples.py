"""The programs of examples/, run as they stand with a small bundle."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgedit.demo import ASTRONAUT
from edgedit.editor import Editor, open_bundle
from engines.bundle import Bundle
from engines.directions import Direction
from serving.local.install import Installation
from tests.random_bundle import RANDOM_BUNDLE
from tests.training.importers.files import write
from training.methods import load

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
HEAD = (slice(0, 260), slice(90, 350))
"""Rows and columns of the astronaut's photo around her face, which is found quickly."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a photo."""
    monkeypatch.chdir(tmp_path)
    head = Image.fromarray(np.asarray(Image.open(ASTRONAUT))[HEAD])
    for folder, photo in (("with", head), ("without", head.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
        Path(folder).mkdir()
        photo.save(f"{folder}/photo.png")
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs an example with these words and gives what it printed; a refusal is its SystemExit."""

    def example(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return example


def test_every_example_is_listed_and_tested() -> None:
    names = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert [name[:3] for name in names] == [f"{number:02}_" for number in range(1, len(names) + 1)]
    listed, tested = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    assert all(f"[{name}]({name})" in listed and f'"{name}"' in tested for name in names)


def test_a_photo_is_edited(run) -> None:
    printed = run("01_edit_a_photo.py", "with/photo.png", "-b", RANDOM_BUNDLE)
    assert "smile: -3 to 4" in printed
    edited = np.asarray(Image.open("smiling.png"))
    assert edited.shape == (260, 260, 3) and (edited != np.asarray(Image.open("with/photo.png"))).any()


def test_a_sweep_is_a_gif_that_runs_there_and_back(run) -> None:
    words = ("--photo", "with/photo.png", "--frames", 3, "--pixels", 64, "-b", RANDOM_BUNDLE)
    run("02_sweep_as_gif.py", "age", *words)
    with Image.open("sweep.gif") as gif:
        assert (gif.format, gif.size, gif.n_frames) == ("GIF", (64, 64), 4)
    with pytest.raises(SystemExit, match="error: no direction hat; there are smile, age"):
        run("02_sweep_as_gif.py", "hat", *words)


def test_a_direction_leads_from_one_folder_to_the_other(run, place: Path) -> None:
    printed = run("03_your_own_direction.py", "with", "without", "-b", RANDOM_BUNDLE)
    assert "wrote own.safetensors" in printed and "without to with" == Direction.load("own.safetensors").description
    editor = Editor.load(RANDOM_BUNDLE)
    codes = [editor.invert(f"{folder}/photo.png").host().w_e[0] for folder in ("with", "without")]
    np.testing.assert_allclose(codes[1] + Direction.load("own.safetensors").vector, codes[0], atol=1e-5)
    (place / "empty").mkdir()
    with pytest.raises(SystemExit, match="error: empty holds no photos"):
        run("03_your_own_direction.py", "with", "empty", "-b", RANDOM_BUNDLE)


def test_an_official_checkpoint_becomes_weights(run, place: Path) -> None:
    (checkpoint,) = write(place, "e4e")
    with pytest.raises(SystemExit, match=r"error: .* needs the graph 'invert'"):
        run("04_import_and_export_e4e.py", checkpoint, "--graph", "edit")
    assert load("e4e-bundle.safetensors").info.key == "e4e" and not Path("e4e-bundle").exists()
    with pytest.raises(SystemExit, match=r"error: absent\.pt "):
        run("04_import_and_export_e4e.py", "absent.pt")


@pytest.mark.slow
def test_an_official_checkpoint_becomes_a_bundle(run, place: Path) -> None:
    (checkpoint,) = write(place, "e4e")
    printed = run("04_import_and_export_e4e.py", checkpoint)
    assert "wrote e4e-bundle: " in printed and "agree with PyTorch" in printed
    assert Bundle.load("e4e-bundle").method == "e4e"


def test_an_engine_is_built_and_its_precision_told(run, place: Path) -> None:
    shutil.copytree(RANDOM_BUNDLE, "BUNDLE")
    printed = run("05_build_and_inspect_an_engine.py", "-b", "BUNDLE")
    assert "edit: 100.0% of" in printed and "invert: no rtx4060 needs less than" in printed
    assert f"edgedit inspect {place / 'BUNDLE/engines/onnxruntime-cpu-fp32'}" in printed
    with pytest.raises(SystemExit, match="error: unknown target"):
        run("05_build_and_inspect_an_engine.py", "-b", "BUNDLE", "--target", "sm89")


@pytest.mark.triton
def test_a_server_is_called(run, pipelines: Path, development_server: Installation) -> None:
    from serving.local.server import LocalTriton

    with LocalTriton(open_bundle(pipelines), installation=development_server) as server:
        printed = run("06_serve_and_call.py", server.grpc, "--photo", "with/photo.png")
    assert Image.open("served.png").size == (260, 260) and "age +1: mean grey level" in printed


def test_a_client_without_a_server_says_so(run) -> None:
    pytest.importorskip("tritonclient", reason="the client needs the serve extra")
    with pytest.raises(SystemExit, match="error: "):
        run("06_serve_and_call.py", "127.0.0.1:1", "--photo", "with/photo.png")
    assert not Path("served.png").exists()


def test_a_batch_goes_on_where_it_was(run) -> None:
    words = ("07_a_batch.py", "with", "-b", RANDOM_BUNDLE)
    assert "1 of 1 photos done, 0 of them before; 2 files written" in run(*words)
    Path("edited/younger/photo.png").unlink()
    assert "1 of 1 photos done, 0 of them before; 1 files written" in run(*words)
    assert Path("edited/smiling/photo.png").is_file() and Path("edited/younger/photo.png").is_file()
