"""`edgedit inspect` as a user types it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.edgedit.conftest import Cli
from tests.engines.inspector.samples import CERTIFICATE, edit_report, engine_report, write_engine, write_report


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return write_report(tmp_path / "report.json", engine_report())


def test_an_engine_is_described(cli: Cli, own_bundle: Path, tmp_path: Path) -> None:
    invert = engine_report().model_copy(update={"graph": "invert"})
    folder = write_engine(own_bundle, [engine_report(), invert], CERTIFICATE)
    page, summary = tmp_path / "report.html", tmp_path / "summary.json"
    done = cli("inspect", folder, "--html", page, "--json", summary)
    assert done.status == 0
    for words in (
        "edit: faces / tensorrt-rtx-sm86-fp16",
        "softmax: exponentials",
        "psnr worst 51.5",
        "--graph NAME",
        "RTX 3090",
    ):
        assert words in done.out
    assert page.read_bytes().startswith(b"<!doctype html>") and b"tensorrt-rtx-sm86-fp16" in page.read_bytes()
    found = json.loads(summary.read_text())
    assert found["graph"] == "edit" and found["macs"] == engine_report().macs
    assert found["fp16_share"] == pytest.approx(engine_report().share("float16"))
    assert sum(map(len, found["wide"].values())) == sum(x.reason is not None for x in engine_report().layers)
    assert found["measured_layers"] == found["layers"] and found["floor_ms"] < found["measured_ms"]
    assert "invert: faces" in cli("inspect", folder, "--graph", "invert").out


def test_no_path_of_this_machine_goes_into_the_report(cli: Cli, report: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    assert cli("inspect", report, "--html", page).status == 0
    assert str(tmp_path).encode() not in page.read_bytes()


def test_a_bundles_own_graph(cli: Cli, bundle_path: Path) -> None:
    pytest.importorskip("onnx_ir", reason="reading ONNX graphs needs onnx-ir")
    done = cli("inspect", bundle_path, "--graph", "invert")
    assert done.status == 0 and "invert: faces / ONNX graph" in done.out and "FP32" in done.out


def test_two_are_compared(cli: Cli, report: Path, tmp_path: Path) -> None:
    other = write_report(tmp_path / "fp32.json", edit_report(precision="fp32"))
    page, summary = tmp_path / "both.html", tmp_path / "s.json"
    done = cli("inspect", report, "--compare", other, "--gpu", "rtx4090", "--html", page, "--json", summary)
    assert done.status == 0 and "in another precision" in done.out
    found = json.loads(summary.read_text())
    counts = found["matched"]["counts"]
    assert counts["precision"] == len(found["matched"]["precision_differs"]) > 0
    assert counts["only A"] == counts["only B"] == 0
    assert found["compare"]["measured_ms"] is None and found["device"] == "GeForce RTX 4090"
    assert b"Two engines side by side" in page.read_bytes()


def test_figures_of_ones_own_device(cli: Cli, report: Path) -> None:
    done = cli("inspect", report, "--peak-tflops", "100", "--bandwidth-gbs", "500", "--top", "3")
    assert done.status == 0 and "100 TFLOP/s, 500 GB/s" in done.out and "the 3 costliest layers" in done.out
    assert "costliest" not in cli("inspect", report, "--top", "0").out


def test_terminal_codes_in_names_are_not_passed_on(cli: Cli, tmp_path: Path) -> None:
    base = engine_report()
    evil = [
        x.model_copy(update={"name": f"\x1b]0;evil\x07[red]{i}", "reason": "\x1b[2J"})
        for i, x in enumerate(base.layers)
    ]
    file = write_report(tmp_path / "evil.json", base.model_copy(update={"layers": evil}))
    done = cli("inspect", file)
    assert done.status == 0 and "\x1b" not in done.out and "\x07" not in done.out
    # Nor is what looks like the terminal library's own markup taken for it.
    assert "[red]" in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}/missing"], "there is no {tmp}/missing: give an engine folder"),
        (["{tmp}"], "is neither an engine folder nor a bundle"),
        (["{report}", "--html", "{tmp}/r.txt"], "its name must end in .html, .htm"),
        (["{report}", "--html", "{tmp}/no/r.html"], "there is no directory {tmp}/no"),
        (["{report}", "--html", "{tmp}/r.html", "--json", "{tmp}/r.html"], "--json and --html both name"),
        (["{report}", "--graph", "invert"], "is a report of graph edit"),
        (["{report}", "--gpu", "nope"], "unknown GPU 'nope'"),
        (["{report}", "--bandwidth-gbs", "3"], "go together"),
        (["{report}", "--top", "-1"], "--top must not be negative"),
        (["{report}", "--compare", "{tmp}/missing"], "there is no {tmp}/missing"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    cli: Cli, report: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    done = cli("inspect", *(word.format(tmp=tmp_path, report=report) for word in words))
    assert message.format(tmp=tmp_path) in done.error
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_an_unwritable_folder(cli: Cli, report: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert "does not let you write" in cli("inspect", report, "--html", folder / "r.html").error
