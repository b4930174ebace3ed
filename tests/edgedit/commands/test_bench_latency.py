"""`edgedit bench latency`, `compare` and `report`: files, exit status, refusals, and a machine without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.latency.result import read
from tests.bench.latency.conftest import ORT, TORCH, result
from tests.edgedit.conftest import Cli
from tests.random_bundle import RANDOM_BUNDLE

LATENCY = ("bench", "latency", "--bundle", RANDOM_BUNDLE)
_ROOT = Path(__file__).resolve().parents[3]

_WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name.partition(".")[0] == "torch" else find(name, *more)
from edgedit.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_pytorch_the_first_runtime_is_the_base(tmp_path: Path) -> None:
    out = tmp_path / "latency.json"
    words = (*LATENCY, "--graph", "reconstruct", "--batch", "1", "--passes", "6", "--starts", "0", "--seconds", "0")
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, *map(str, words), "--json", str(out)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "without torch:fp32, 1.0× is onnxruntime:fp32" in done.stdout
    assert "not measured: torch:fp32: PyTorch is not installed" in done.stdout
    found = read(out)
    assert found.base == ORT and [row.speedup for row in found.rows if row.name == ORT] == [1.0]
    assert "--graph reconstruct --batch 1 --passes 6" in found.command and str(tmp_path) not in out.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--graph", "edti"), "there is no graph 'edti' in this bundle"),
        (("--batch", "0"), "--batch takes sizes of 1 or more, each once"),
        (("--batch", "2", "2"), "--batch takes sizes of 1 or more, each once"),
        (("--passes", "0"), "--passes must be 1 or more"),
        (("--seconds", "nan"), "--passes must be 1 or more, --seconds"),
        (("--starts", "-1"), "--starts and --threads 0 or more"),
        (("--runtime", "onnx"), "there is no runtime 'onnx' here"),
        (("--runtime", "tensorrt"), "tensorrt"),
        (("--bundle", "nowhere"), "nowhere"),
        (("--json", "no/latency.json"), "there is no directory no"),
    ],
)
def test_what_is_refused_before_anything_is_measured(
    cli: Cli, words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.latency.measure.measure", lambda *_, **__: pytest.fail("it was begun"))
    done = cli(*LATENCY, *words)
    assert message in done.error and list(tmp_path.iterdir()) == []


def test_compare_fails_when_something_got_slower(cli: Cli, tmp_path: Path) -> None:
    samples = [10.0, 10.1, 9.9, 10.05, 9.95, 10.02]
    for name, factor in (("before", 0.5), ("after", 0.7)):
        content = result({TORCH: samples, ORT: [factor * one for one in samples]})
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    before, after, out = (tmp_path / f"{name}.json" for name in ("before", "after", "compared"))
    worse = cli("bench", "compare", before, after, "--json", out)
    assert worse.status == 1 and worse.error == "1 of 2 rows got slower" and "slower" in worse.out
    assert json.loads(out.read_text())["slower"] == 1
    better = cli("bench", "compare", after, before)
    assert better.status == 0 and "faster" in better.out
    missing = cli("bench", "compare", before, tmp_path / "none.json")
    assert "none.json: No such file or directory" in missing.error


def test_report_writes_one_page_and_refuses_what_it_cannot_read(cli: Cli, tmp_path: Path) -> None:
    samples = [10.0, 11.0]
    file, out = tmp_path / "latency.json", tmp_path / "page.html"
    file.write_text(json.dumps(result({TORCH: samples, ORT: samples})))
    done = cli("bench", "report", file, "-o", out)
    assert done.status == 0 and out.read_text().startswith("<!doctype html>")
    assert str(tmp_path) not in out.read_text()
    (tmp_path / "other.json").write_text("{}")
    refused = cli("bench", "report", file, tmp_path / "other.json", "-o", tmp_path / "second.html")
    assert "other.json is not a file of" in refused.error and not (tmp_path / "second.html").exists()
    assert "its name must end in .html" in cli("bench", "report", file, "-o", tmp_path / "page.pdf").error
