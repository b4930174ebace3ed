"""What the pages show works: shell lines parse, Python blocks run, messages and tables are those of the sources."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import edgedit
from bench.tables import TABLES, filled
from edgedit.batching.edits import EXAMPLE
from edgedit.cli import main, parse
from edgedit.commands.directions import spelt_out
from edgedit.commands.examples import EXAMPLES
from edgedit.demo import ASTRONAUT
from tests.random_bundle import RANDOM_BUNDLE
from tests.test_layers import PACKAGES
from tests.test_papers import PAPERS, ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
RUN = ("edit", "batch")
"""Verbs of the README's tour that are run here, on a small bundle."""
PARSED = {
    "demo": "the first command, which CI runs as it stands",
    "studio": "a server, which runs until it is stopped: tests/serving/studio",
    "build": "needs TensorRT-RTX: tests/engines/building",
    "serve up": "needs Triton: tests/serving/local",
    "serve gateway": "a server, which runs until it is stopped: tests/serving/gateway",
    "bench latency": "minutes long: tests/bench/latency",
}
"""Its other verbs, which are parsed, and why; what they do is tested elsewhere."""


def text(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> list[tuple[str, bool]]:
    """Fenced blocks of a language, and whether a comment before one says that it is only parsed, and why."""
    found = re.findall(rf"(<!-- parsed: [^\n]+ -->\n)?^```{language}\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)
    return [(block, bool(parsed)) for parsed, block in found]


def shell_lines(block: str) -> Iterator[list[str]]:
    """The words of each command of a block; what stands before its program, such as a folder, is taken off it."""
    for line in block.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), ";"]:
            if word in ("|", "&&", ";", ">"):
                if words:
                    yield [words[0].rsplit("/", 1)[-1], *words[1:]]
                words = []
            else:
                words.append(word)


@cache
def verb_of(words: tuple[str, ...]) -> str:
    """The verb of a command line of edgedit, which must parse; its options and values are looked at, no file is."""
    assert parse(spelt_out(list(words))) is not None
    return max((verb for verb in EXAMPLES if list(words[: len(verb.split())]) == verb.split()), key=len)


@pytest.mark.parametrize("page", PAPERS)
def test_shell_blocks_parse(page: str) -> None:
    for block, _ in blocks(page, "sh"):
        checked = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert checked.returncode == 0, f"{page}: {checked.stderr}"
        for program, *words in shell_lines(block):
            if program == "edgedit":
                verb_of(tuple(words))
            elif program == "pip":
                assert all(Path(ROOT / file).is_file() for file in words[1:] if file.endswith(".lock"))
                extras = re.findall(r"\[([\w,]+)\]", " ".join(words))
                assert set(",".join(extras).split(",")) - {""} <= set(EXTRAS), f"{page}: {words}"


@pytest.mark.parametrize("verb", RUN)
def test_the_tour_runs(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edgedit/assets").mkdir(parents=True)
    shutil.copy(ASTRONAUT, tmp_path / "edgedit/assets")
    (tmp_path / "edits.yaml").write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    (words,) = [words for words in tour() if words[: len(verb.split())] == verb.split()]
    assert main([*words, "-b", str(RANDOM_BUNDLE)]) == 0, capsys.readouterr().err
    assert Path("smiling.png").is_file() if verb == "edit" else Path("edited/smiling/astronaut.jpg").is_file()


def tour() -> list[list[str]]:
    """The README's command lines of edgedit."""
    lines = [words for block, _ in blocks("README.md", "sh") for words in shell_lines(block)]
    return [words for program, *words in lines if program == "edgedit"]


def test_every_command_of_the_readme_is_run_or_has_a_reason() -> None:
    assert {verb_of(tuple(words)) for words in tour()} == {*RUN, *PARSED}
    assert all((ROOT / place).exists() for why in PARSED.values() for place in re.findall(r"tests/[\w/]+", why))


@pytest.mark.parametrize("page", [page for page in PAPERS if blocks(page, "python")])
def test_python_blocks_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    load = edgedit.Editor.load
    monkeypatch.setattr(edgedit.Editor, "load", lambda *args, **options: load(RANDOM_BUNDLE, *args, **options))
    for block, parsed in blocks(page, "python"):
        if not parsed:
            exec(compile(block, page, "exec"), {})
            continue
        for call in (node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "edgedit":
                takes = inspect.signature(getattr(edgedit, call.func.attr))
                takes.bind(*call.args, **{word.arg: word.value for word in call.keywords if word.arg})


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_results(name: str) -> None:
    page, table = TABLES[name]
    shown = text(page)
    assert filled(shown, name, table()) == shown, "python -m bench.tables --write"


@cache
def sources() -> tuple[str, ...]:
    """All texts of the packages' modules, with a zero byte where one has a value put in."""
    texts = []
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return tuple(texts)


def test_messages_of_the_troubleshooting_page_are_in_the_sources() -> None:
    messages = re.findall(r"^\| `([^`]+)` \|", text("docs/troubleshooting.md"), re.MULTILINE)
    assert len(messages) > 30
    for message in messages:
        pattern = re.compile(".*".join(re.escape(part) for part in message.split("…")), re.DOTALL)
        assert any(pattern.search(source) for source in sources()), message


def test_lists_are_complete() -> None:
    verbs = {verb.split()[0] for verb in EXAMPLES if verb}
    assert {verb for verb in verbs if f"`edgedit {verb}`" not in text("docs/command-line.md")} == set()
    assert {extra for extra in EXTRAS if f"`{extra}`" not in text("docs/installing.md")} == set()
    described = re.findall(r"^\.\. auto\w+:: (\w+)$", text("docs/api.md"), re.MULTILINE)
    assert sorted(described) == sorted(edgedit.__all__)
    assert len(text("README.md").splitlines()) <= 120


def test_what_does_not_work_is_noticed() -> None:
    assert [*shell_lines("a/edgedit info -b B && pip install '.[rtx]'  # why\n")] == [
        ["edgedit", "info", "-b", "B"],
        ["pip", "install", ".[rtx]"],
    ]
    with pytest.raises(Exception, match="--strengths"):
        verb_of(("edit", "photo.jpg", "--strengths", "2"))
