"""What goes where: exit statuses, `--json -`, tables on terminals and in pipes, and the scripts of shells."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from edgedit.cli import STATUSES, UNREAD
from edgedit.commands.common import Screen, console
from tests.edgedit.conftest import Cli
from tests.edgedit.test_cli import VERBS, process

_ROOT = Path(__file__).resolve().parents[2]
_BOXES = re.compile(r"[\u2500-\u257f\x1b]")

_LOADED = """
import io, sys
from contextlib import redirect_stdout
from edgedit.cli import main
with redirect_stdout(io.StringIO()) as script:
    assert main(["completion", sys.argv[1]]) == 0
heavy = [name for name in ("torch", "onnxruntime", "c2pa", "tritonclient", "fastapi") if name in sys.modules]
assert not heavy, heavy
sys.stdout.write(script.getvalue())
"""


def test_statuses_stand_in_the_help_and_in_the_docs(cli: Cli) -> None:
    told = " ".join(cli("--help").out.split())
    page = (_ROOT / "docs" / "command-line.md").read_text()
    assert len(STATUSES) == 5
    for status, meaning in STATUSES.items():
        assert f"{status} {meaning}" in told and f"| {status} | {meaning} |" in page


@pytest.mark.parametrize("verb", ["directions list", "info", "verify"])
def test_json_on_standard_output_is_all_there(cli: Cli, bundle_path: Path, tmp_path: Path, verb: str) -> None:
    done = cli(*verb.split(), "-b", bundle_path, "--json", "-")
    assert done.status == 0 and json.loads(done.out)["bundle"] == str(bundle_path)
    assert ("smile" in done.err or "digest" in done.err) and not console.stderr
    file = tmp_path / "out.json"
    assert cli(*verb.split(), "-b", bundle_path, "--json", file).status == 0
    assert file.read_text() == done.out
    refused = cli(*verb.split(), "-b", tmp_path / "nowhere", "--json", "-")
    assert refused.status == 1 and refused.out == "" and refused.error


def test_a_verb_with_work_to_do_prints_json_alone(cli: Cli, bundle_path: Path, head_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    done = cli("edit", head_path, "-d", "smile:9", "-o", out, "-b", bundle_path, "--threads", 1, "--json", "-")
    told = json.loads(done.out)
    assert done.status == 0 and told["edits"] == {"smile": 9.0} and len(told["warnings"]) == 1
    assert f"wrote {out}" in done.err and os.listdir(tmp_path) == ["out.png"]


def test_every_verb_takes_json(cli: Cli) -> None:
    for verb in VERBS:
        assert '"-" is standard output' in " ".join(cli(*verb.split(), "--help").out.replace("│", " ").split()), verb


def test_tables_are_plain_in_a_pipe(bundle_path: Path) -> None:
    done = process("-m", "edgedit", "directions", "list", "-b", bundle_path)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and not _BOXES.search(done.stdout)
    assert any(re.match(r"smile +-3 \.\. 3 +interfacegan +w +changes the smile *$", line) for line in lines)


def drawn(environment: dict[str, str]) -> str:
    table = Table("name", "what it is")
    table.add_row("long", "word " * 40)
    screen = Screen(file=io.StringIO(), force_terminal=True, width=60, _environ=environment)
    screen.print(table, style="bold red")
    return screen.file.getvalue()  # type: ignore[attr-defined]


def test_terminals_get_what_they_can_show() -> None:
    usual = drawn({"TERM": "xterm-256color"})
    assert "─" in usual and "\x1b[" in usual and max(map(len, re.sub(r"\x1b\[[\d;]*m", "", usual).splitlines())) <= 60
    # Bold is no colour.
    assert "\x1b[1;31m" in usual and "31m" not in drawn({"TERM": "xterm-256color", "NO_COLOR": "1"})
    dumb = drawn({"TERM": "dumb"})
    assert not _BOXES.search(dumb) and ("word " * 40).strip() in dumb


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Windows break otherwise")
def test_a_reader_that_goes_away_is_no_error(bundle_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "edgedit", "directions", "list", "-b", str(bundle_path)]
    try:
        done = subprocess.run(command, cwd=_ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (UNREAD, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, tmp_path: Path) -> None:
    done = process("-c", _LOADED, shell)
    assert done.returncode == 0, done.stderr
    script = done.stdout
    assert all(word in script for verb in VERBS for word in verb.split()) and "--no-credentials" in script
    assert str(_ROOT) not in script
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(script)
        assert subprocess.run([program, "-n", str(tmp_path / "script")]).returncode == 0
    if shell == "bash" and program and shutil.which("python3"):
        asked = "COMP_WORDS=(edgedit dem); COMP_CWORD=1; _tyro_edgedit; echo ${COMPREPLY[@]}"
        line = f"source {tmp_path / 'script'}; {asked}"
        found = subprocess.run([program, "-c", line], capture_output=True, text=True)
        assert found.stdout.split() == ["demo"], found.stderr
