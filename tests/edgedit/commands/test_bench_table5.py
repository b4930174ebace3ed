"""`edgedit bench count` and `edgedit bench time`: what it writes, and what it refuses before any work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from engines import family
from engines.errors import OutputError
from tests.bench.table5.conftest import SMALL
from tests.edgedit.conftest import Cli

TIME = ("bench", "time")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(family.FAMILIES, SMALL.name, SMALL)


def test_times_of_two_methods(cli: Cli, tmp_path: Path) -> None:
    out, plot = tmp_path / "times.json", tmp_path / "times.svg"
    words = ("--family", "small", "--method", "FS", "--passes", "3", "--no-memory", "--json", out, "--plot", plot)
    done = cli(*TIME, *words)
    assert done.status == 0 and done.err == ""
    assert "of 3 passes; weights are random" in " ".join(done.out.split())
    found = json.loads(out.read_text())
    assert [row["key"] for row in found["rows"]] == ["e4e", "fs"] and found["passes"] == 3 and found["warmup"] == 2
    assert all(len(row["complete"]["samples_ms"]) == 3 for row in found["rows"])
    assert {"command", "date", "host", "device", "versions", "threads"} <= set(found)
    assert found["command"] == ("edgedit bench time --method FS --family small --passes 3 --no-memory --plot PLOT")
    assert str(tmp_path) not in out.read_text()
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_counts(cli: Cli, tmp_path: Path) -> None:
    done = cli("bench", "count", "--json", tmp_path / "counts.json")
    assert done.status == 0 and "StyleRes" in done.out
    assert len(json.loads((tmp_path / "counts.json").read_text())["rows"]) == 11


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "sfee"), "there is no method 'sfee'; did you mean sfe? there are e4e, fs"),
        (("--family", "cars"), "unknown model family 'cars'"),
        (("--passes", "0"), "--passes and --warmup must be 1 or more"),
        (("--warmup", "0"), "--passes and --warmup must be 1 or more"),
        (("--minutes", "0"), "--minutes above 0"),
        (("--minutes", "nan"), "--minutes above 0"),
        (("--threads", "-1"), "--threads must be 0 or more, got -1"),
        (("--tf32",), "TF32 is an arithmetic of NVIDIA GPUs"),
        (("--how", "onnxruntime", "--precision", "fp16"), "--precision is PyTorch's"),
        (("--keep-graphs", "graphs"), "--keep-graphs goes with --how onnxruntime"),
        (("--how", "onnxruntime", "--keep-graphs", "no/graphs"), "no/graphs: No such file or directory"),
        (("--plot", "plot.pdf"), "cannot write plot.pdf: its name must end in .svg, .png"),
        (("--plot", "no/plot.svg"), "cannot write no/plot.svg: there is no directory no"),
        (("--json", "no/times.json"), "cannot write no/times.json: there is no directory no"),
        (("--json", "one.svg", "--plot", "one.svg"), "--json and --plot both name one.svg"),
    ],
)
def test_what_is_refused(
    cli: Cli, words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.table5.times.measure", lambda *_, **__: pytest.fail("it was begun"))
    done = cli(*TIME, *words)
    assert done.status == 1 and message in done.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bench",), "Expected one of {latency, compare, report, count, time, serve}"),
        (("bench", "count", "time"), "Unrecognized options: time"),
        (("bench", "count", "--passes", "3"), "Unrecognized options: --passes 3"),
        (("bench", "time", "--components"), "Unrecognized options: --components"),
    ],
)
def test_counts_and_times_are_verbs_of_their_own(cli: Cli, words: tuple[str, ...], message: str) -> None:
    done = cli(*words)
    assert done.status == 2 and message in done.error


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize(
    ("how", "message"), [("eager", "finds no CUDA device here"), ("onnxruntime", "has no CUDAExecutionProvider")]
)
def test_without_a_gpu_one_line_says_so(cli: Cli, how: str, message: str) -> None:
    done = cli(*TIME, "--device", "cuda", "--how", how)
    assert done.status == 1 and message in done.error and "--device cpu" in done.error


def test_a_plot_that_fails_leaves_the_figures(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutputError("cannot write times.svg: No space left on device")

    monkeypatch.setattr("bench.table5.plot.draw", full)
    out = tmp_path / "times.json"
    words = ("--family", "small", "--method", "e4e", "--passes", "1", "--warmup", "1", "--no-memory")
    done = cli(*TIME, *words, "--json", out, "--plot", tmp_path / "times.svg")
    assert done.status == 1 and done.error == "cannot write times.svg: No space left on device"
    assert len(json.loads(out.read_text())["rows"]) == 1


def test_without_matplotlib_no_measurement_is_begun(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("bench.figures", "bench.table5.plot"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("bench.table5.times.measure", lambda *_, **__: pytest.fail("it was begun"))
    done = cli(*TIME, "--plot", tmp_path / "times.svg")
    assert done.status == 1 and done.error.startswith("a plot needs matplotlib: pip install 'edgedit[bench]'")
