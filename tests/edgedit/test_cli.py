"""What holds for every verb: help, refusals in one line, summaries, and the command as a process of its own."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgedit.cli import main
from tests.edgedit.conftest import Cli

_ROOT = Path(__file__).resolve().parents[2]
VERBS = (
    "edit",
    "batch",
    "reconstruct",
    "directions list",
    "directions fit",
    "directions calibrate",
    "demo",
    "info",
    "import weights",
    "import direction interfacegan",
    "import direction ganspace",
    "import direction stylespace",
    "import direction styleclip",
    "import mapper",
    "train",
    "evaluate",
    "export",
    "estimate",
    "build",
    "refit",
    "inspect",
    "serve repo",
    "serve up",
    "serve setup",
    "serve gateway",
    "serve key",
    "bench latency",
    "bench compare",
    "bench report",
    "bench count",
    "bench time",
    "bench serve",
    "sign",
    "verify",
    "credentials",
    "doctor",
    "completion",
)

_NO_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from edgedit.cli import main
sys.exit(main(sys.argv[1:]))
"""


def process(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=_ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("verb", VERBS)
def test_help(cli: Cli, verb: str) -> None:
    done = cli(*verb.split(), "--help")
    assert done.status == 0 and done.err == ""
    assert f"usage: edgedit {verb}" in done.out and "--json FILE" in done.out
    assert str(_ROOT) not in re.sub(r"[│\s]", "", done.out)
    assert str(Path.home()) not in done.out or Path.home() == Path("/")
    assert "None" not in done.out


def test_help_lists_the_verbs_and_names_the_portrait_bundle(cli: Cli) -> None:
    done = cli("--help")
    assert done.status == 0 and all(f"• {verb.split()[0]}" in done.out for verb in VERBS)
    for verb in ("edit", "reconstruct", "demo", "info", "directions list", "serve up", "serve repo"):
        assert "(default: the portrait bundle)" in " ".join(cli(*verb.split(), "--help").out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"Expected one of \{edit, batch, reconstruct, .*\}; see `edgedit --help`"),
        (["edti"], r"edti.*; see `edgedit --help`"),
        (["edit"], r"Missing .* see `edgedit edit --help`"),
        (["edit", "a.png", "-d", "smile:1"], r"Missing .*--out PATH"),
        (["edit", "a.png", "-o", "x.png", "--bogus"], r"Unrecognized options: --bogus"),
        (["edit", "a.png", "-o", "x.png", "-d", "smile", "-s", "abc"], r"-s/--strength: 'abc' is not FLOAT"),
        (["edit", "a.png", "-o", "x.png", "--face", "left"], r"--face: 'left' is not INT"),
        (["edit", "a.png", "-o", "x.png", "--paste", "over"], r"invalid choice 'over'.*'detail'"),
        (["edit", "a.png", "-o", "x.png", "--strength"], r"Missing value.*--strength"),
        (["train", "everything"], r"invalid choice 'everything'.*'generator'"),
    ],
)
def test_malformed_command_lines(cli: Cli, words: list[str], message: str) -> None:
    done = cli(*words)
    assert done.status == 2 and done.out == ""
    assert re.search(message, done.error)


@pytest.mark.parametrize(("words", "status"), [(["edit", "{photo}", "-d", "smile:1"], 1), (["edit", "-s", "much"], 2)])
def test_refusals_of_the_process(bundle_path: Path, tmp_path: Path, words: list[str], status: int) -> None:
    (tmp_path / "text.jpg").write_text("this is not an image")
    words = [word.format(photo=tmp_path / "text.jpg") for word in words]
    done = process("-m", "edgedit", *words, "-o", tmp_path / "out.png", "-b", bundle_path)
    assert done.returncode == status
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["text.jpg"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "generator", "--faces", "faces", "--run", "run"], "`edgedit train` needs torch: .*edgedit.train."),
        (["export", "--random", "demo-64", "-o", "bundle"], "`edgedit export` needs torch: .*edgedit.export."),
        (
            ["import", "direction", "interfacegan", "x.pt", "-o", "x.safetensors"],
            "`edgedit import direction` needs torch: .*edgedit.train.",
        ),
    ],
)
def test_what_needs_torch_says_so(words: list[str], message: str) -> None:
    done = process("-c", _NO_TORCH, *words)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.match(f"error: {message}", done.stderr)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_boxes_of_either_kind_are_read(cli: Cli, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    assert cli("nope").error == "Unrecognized options: nope; see `edgedit --help`"


def test_main_reads_the_command_line_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["edgedit", "info", "--help"])
    assert main() == 0
    assert "usage: edgedit info" in capsys.readouterr().out


def test_an_unwritable_summary_is_found_before_the_work(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    done = cli("info", "-b", bundle_path, "--json", tmp_path / "missing" / "s.json")
    assert "there is no directory" in done.error and done.out == ""
    assert "is a directory" in cli("info", "-b", bundle_path, "--json", tmp_path).error
    out = tmp_path / "same.png"
    done = cli("reconstruct", "a.png", "-b", bundle_path, "-o", out, "--json", out)
    assert done.error == f"--json and --out both name {out}; give each its own file"
    assert os.listdir(tmp_path) == []


def test_a_summary_replaces_an_older_one(cli: Cli, bundle_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text("old")
    assert cli("info", "-b", bundle_path, "--json", file).status == 0
    assert json.loads(file.read_text())["name"] == "faces"
    assert os.listdir(tmp_path) == ["s.json"]


def test_stopping_is_no_error(cli: Cli, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgedit.commands.directions.load_directions", interrupted)
    done = cli("directions", "-b", bundle_path)
    assert (done.status, done.err) == (130, "stopped\n")
