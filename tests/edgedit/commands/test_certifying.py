"""`edgedit build --faces`, on the shipped bundle and real photographs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgedit.demo import ASTRONAUT
from edgedit.editor import Editor
from tests.edgedit.conftest import Cli
from tests.random_bundle import RANDOM_BUNDLE

FP16 = ("--runtime", "onnxruntime", "--precision", "fp16", "--graph", "reconstruct")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(RANDOM_BUNDLE, tmp_path_factory.mktemp("demo") / "demo"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An aligned face, at its own size, larger, and mirrored."""
    folder = tmp_path_factory.mktemp("photos")
    aligned = Editor.load(RANDOM_BUNDLE).portrait(ASTRONAUT).aligned
    for name, pixels in (
        ("a.png", aligned),
        ("b.jpg", aligned.repeat(3, 0).repeat(3, 1)),
        ("c.webp", aligned[:, ::-1]),
    ):
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / name)
    (folder / "notes.txt").write_text("no photo")
    # What macOS leaves beside a file on a disk that is not its own.
    (folder / "._c.webp").write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ")
    return folder


def test_the_certificate_of_a_build(cli: Cli, demo: Path, photos: Path, tmp_path: Path) -> None:
    done = cli("build", "-b", demo, *FP16, "--faces", photos, "--json", tmp_path / "summary.json")
    assert done.status == 0, done.err
    assert "certifying on 3 photos against PyTorch" in done.out and "reconstruct: PSNR" in done.out
    summary = json.loads((tmp_path / "summary.json").read_text())
    certificate = summary["manifest"]["graphs"]["reconstruct"]["certificate"]
    assert certificate["passed"] and certificate["photos"] == 3 and certificate["images"]["psnr"]["worst"] >= 45
    assert certificate["reference"].startswith("PyTorch") and "emulated" in certificate["arithmetic"]
    # The command can be repeated, and names no path of this machine.
    assert summary["manifest"]["built"]["command"].endswith("--graph reconstruct --faces FACES")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--faces", "{tmp}/none"), "--faces: there is no "),
        (("--faces", "{tmp}"), "--faces: there is no .png, .jpg, .jpeg, .webp in "),
        (("--faces", "{photos}", "--max-faces", "0"), "--max-faces must be 1 or more, got 0"),
        (("--lpips", "{photos}"), "--lpips and --identity judge faces: give --faces too"),
    ],
)
def test_photos_that_will_not_do(
    cli: Cli, demo: Path, photos: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    filled = [word.format(tmp=tmp_path, photos=photos) for word in words]
    done = cli("build", "-b", demo, *FP16, *filled)
    assert done.status == 1 and message in done.err and done.err.count("\n") == 1


def test_a_damaged_photo(cli: Cli, demo: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes((photos / "b.jpg").read_bytes()[:200])
    done = cli("build", "-b", demo, *FP16, "--faces", tmp_path)
    assert done.status == 1 and "--faces: " in done.err and "torn.jpg" in done.err


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bits_for_onnx_runtime(cli: Cli, demo: Path, photos: Path, tmp_path: Path, precision: str) -> None:
    """One photo is certified, those before it give the ranges; the engine folder then reconstructs a photo."""
    words = ("--runtime", "onnxruntime", "--precision", precision, "--graph", "reconstruct", "--max-faces", "1")
    done = cli("build", "-b", demo, *words, "--faces", photos, "--json", tmp_path / "summary.json")
    assert done.status == 0, done.err
    assert f"ranges for {precision} from 2 photos, others than are certified on" in done.out
    graph = json.loads((tmp_path / "summary.json").read_text())["manifest"]["graphs"]["reconstruct"]
    assert graph["certificate"]["calibration"] == {"photos": 2, "apart": True} and graph["certificate"]["passed"]
    assert graph["proof"]["share"] > 0.96 and graph["certificate"]["images"]["psnr"]["worst"] > 30
    kept = json.loads((demo / "engines" / f"onnxruntime-cpu-{precision}" / graph["ranges"]).read_text())
    quantised = {name for name, peak in kept["peaks"].items() if 0 < peak < 1e3}
    assert graph["ranges"] == "reconstruct.ranges.json" and len(quantised) == len(kept["peaks"]) == 4
    again = cli("build", "-b", demo, *words[:-1], "3", "--faces", photos)
    assert again.status == 0, again.err
    assert f"ranges for {precision} from 3 photos, the ones that are certified on" in again.out
