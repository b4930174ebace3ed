"""Which package may import which, as CONTRIBUTING.md has it; imports inside functions count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engines", "serving", "training", "export", "edgedit", "bench")
MAY = {
    "engines": (),
    "serving": ("engines",),
    "training": ("engines",),
    "export": ("engines", "training"),
    "edgedit": ("engines", "serving", "training", "export"),
    "bench": ("engines", "serving", "training", "export", "edgedit"),
}


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_what_they_may(package: str) -> None:
    for file in (_ROOT / package).rglob("*.py"):
        place = file.relative_to(_ROOT)
        measuring = place.parts[:2] == ("edgedit", "commands") and file.name.startswith("bench_")
        for name in imports(file):
            other = name.partition(".")[0]
            assert other not in PACKAGES or other in (package, *MAY[package]) or (measuring and other == "bench"), (
                f"{place} imports {name}"
            )
            inside = place.parts[:2] == ("edgedit", "commands") or place.name in ("cli.py", "__main__.py")
            assert inside or not name.startswith("edgedit.commands"), f"{place} imports {name}"
