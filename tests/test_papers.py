"""What the project's papers name exists: files, headings, modules and what is in them, and verbs; nothing is run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgedit.commands.examples import EXAMPLES
from tests.test_layers import ENGINES, MAY, PACKAGES, SERVING, TRAINING

ROOT = Path(__file__).resolve().parents[1]
PAGE = "docs/architecture.md"
PAPERS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
    "edgedit/bundles/portrait/card.md",
    "examples/README.md",
    "serving/deploy/README.md",
)
OWN = (*PACKAGES, "tests")
SOURCES = (".cfg", ".Dockerfile", ".json", ".lock", ".md", ".py", ".sh", ".svg", ".toml", ".yaml")
"""How names of files end that, with a folder before them, are this repository's and not what a command writes."""


def spans(text: str) -> list[str]:
    """What stands between backticks, line breaks as spaces; fenced blocks left out."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))]


def commands(text: str) -> Iterator[str]:
    """Spans, and the lines of shell blocks."""
    yield from spans(text)
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        yield from block.splitlines()


def is_path(span: str) -> bool:
    """Whether a span names a file or folder of the repository, and not a placeholder or something of a bundle."""
    if not re.fullmatch(r"[\w.-]+/([\w.-]+/?)*", span) or re.search(r"\b[A-Z]{3,}\b(?!\.md)", span):
        return False
    return span.endswith(SOURCES) or (ROOT / span.partition("/")[0]).is_dir()


def lacking_path(span: str, paper: Path) -> bool:
    return is_path(span) and not any((place / span).exists() for place in (ROOT, paper.parent))


@cache
def names(file: Path) -> frozenset[str]:
    """What a module defines or imports, at any depth, by its last name."""
    found = set[str]()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return frozenset(found)


def lacking_name(dotted: str) -> bool:
    """Whether the module of a dotted name, or what it names in there, is not there."""
    place, parts = ROOT, dotted.split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    file = place / "__init__.py"
    if parts and (place / f"{parts[0]}.py").is_file():
        file = place / f"{parts.pop(0)}.py"
    if not parts:
        return False
    return not file.is_file() or not set(parts) <= names(file)


def dotted_names(command: str) -> Iterator[str]:
    named = rf"(?:{'|'.join(OWN)})(?:\.\w+)+"
    if whole := re.fullmatch(rf"({named})(?:\(.*\))?", command):
        yield whole[1]
    yield from re.findall(rf"python3? -m ({named})", command)


def unknown_verb(command: str) -> str | None:
    """The words of an `edgedit` command line that are no verb, if any."""
    for line in re.findall(r"(?:^\s*|/|&& )edgedit ((?:[a-z]+(?: |$))+)", command):
        words = line.split()
        if words[0] not in EXAMPLES:
            return words[0]
        # After the name of several verbs comes one of them.
        if len(words) > 1 and any(verb.startswith(f"{words[0]} ") for verb in EXAMPLES):
            verb = " ".join(words[:2])
            if verb not in EXAMPLES:
                return verb
    return None


def headings(file: Path) -> set[str]:
    """Anchors of a Markdown file's headings."""
    lines = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("name", PAPERS)
def test_what_a_paper_names_exists(name: str) -> None:
    paper = ROOT / name
    text = paper.read_text()
    assert [span for span in spans(text) if lacking_path(span, paper)] == []
    assert [dotted for command in commands(text) for dotted in dotted_names(command) if lacking_name(dotted)] == []
    assert [verb for command in commands(text) if (verb := unknown_verb(command))] == []


@pytest.mark.parametrize("name", PAPERS)
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text()):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        file = (ROOT / name).parent / target if target else ROOT / name
        assert file.exists(), f"{name} links to {link}"
        assert not anchor or anchor in headings(file), f"{name} links to {link}"


def test_the_picture_names_modules_that_exist() -> None:
    texts = [text for text in ElementTree.parse(ROOT / "docs/architecture.svg").getroot().itertext() if text.strip()]
    named = [dotted for text in texts for dotted in dotted_names(text.strip())]
    assert len(named) > 10
    assert [dotted for dotted in named if lacking_name(dotted)] == []


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of the architecture page, without its first two lines."""
    below = (ROOT / PAGE).read_text().split(f"{heading}\n", 1)[1]
    lines = [line for line in below.split("\n#", 1)[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_tells_the_rules_that_are_tested() -> None:
    def may(heading: str) -> dict[str, set[str]]:
        return {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in rows(heading)}

    assert may("## Rooms") == {package: set(others) for package, others in MAY.items()}
    assert may("### `serving`") == {room: set(others) for room, others in SERVING.items()}
    assert may("### `training`") == {room: set(others) for room, others in TRAINING.items()}
    assert tuple(row[0].strip("`") for row in rows("### `engines`")) == ENGINES
    for package, rooms in (("engines", ENGINES), ("serving", SERVING), ("training", TRAINING)):
        assert {path.parent.name for path in (ROOT / package).glob("*/__init__.py")} == set(rooms)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`engines/photo/align.py`, `export/`, `.ci/run` and `bench/results/`", 0),
        ("`engines/photo/gone.py`, `gone/module.py` and `bench/gone/`", 3),
        ("`BUNDLE/engines/NAME`, `and/or`, `photo.jpg`", 0),
        ("`engines.store`, `engines.building.build.build`, `edgedit.Editor`, `edgedit.export(run)`", 0),
        ("`engines.gone`, `engines.store.gone` and `python -m bench.gone`", 3),
        ("`edgedit serve up`, `edgedit import weights e4e x.pt`, `edgedit VERB --help`, `import edgedit`", 0),
        ("`kubectl -n edgedit get pods`, `edgedit plan`, `edgedit serve down`", 2),
        ("```sh\n.venv/bin/edgedit demo &&\n.venv/bin/edgedit gone -b BUNDLE\n```\n", 1),
    ],
)
def test_the_checks_find_what_is_not_there(text: str, wrong: int) -> None:
    paths = [span for span in spans(text) if lacking_path(span, ROOT / PAGE)]
    modules = [dotted for command in commands(text) for dotted in dotted_names(command) if lacking_name(dotted)]
    verbs = [verb for command in commands(text) if (verb := unknown_verb(command))]
    assert len(paths) + len(modules) + len(verbs) == wrong
