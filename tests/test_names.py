"""Names in the packages are nouns of what they hold; keys of files and of the wire keep theirs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_layers import PACKAGES

_ROOT = Path(__file__).resolve().parents[1]
_NO_NOUNS = {"told", "asked", "judged", "seen", "found", "kept", "near", "fault", "faults", "twin"}
_EXCEPTIONS = {
    "asked": "a field of the engine manifest",
    "near": "a field of the files of `python -m bench.ranges`",
    "NOT_FOUND": "Triton's name of a status",
}
"""Names by the reason why they stay; errors of the kind NotFoundError have the usual name of such errors."""


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that is used, defined, passed or imported, with its line."""
    for node in ast.walk(tree):
        for field in ("id", "arg", "attr", "name", "asname", "rest"):
            if isinstance(name := getattr(node, field, None), str):
                yield getattr(node, "lineno", 0), name


@pytest.mark.parametrize("package", PACKAGES)
def test_names_are_nouns(package: str) -> None:
    for file in (_ROOT / package).rglob("*.py"):
        for line, name in names(ast.parse(file.read_text())):
            words = re.findall(r"[A-Z]*[a-z]+|[A-Z]+", name.replace("NotFound", ""))
            wrong = _NO_NOUNS & {word.lower() for word in words} and name not in _EXCEPTIONS
            assert not wrong, f"{file.relative_to(_ROOT)}:{line} has the name {name}: rename it to what it holds"
