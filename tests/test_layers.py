"""Which package and which room may import which, as docs/architecture.md has it; imports inside functions count too."""

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
ENGINES = ("bundle", "directions", "runtimes", "photo", "precision", "building", "inspector")
"""The rooms of `engines`; each may import those before it."""
SERVING = {
    "models": (),
    "backends": (),
    "deploy": (),
    "repository": ("models", "deploy"),
    "local": ("repository",),
    "client": ("models",),
    "gateway": ("client",),
    "studio": ("client", "gateway"),
}
"""The rooms of `serving`, and those that each may import."""
TRAINING = {
    "networks": (),
    "losses": ("networks",),
    "methods": ("networks",),
    "importers": ("networks", "methods"),
    "measuring": ("networks", "losses", "methods"),
    "stages": ("networks", "losses", "methods", "measuring"),
    "recipes": ("losses", "stages"),
    "running": ("networks", "losses", "methods", "measuring", "stages", "recipes"),
}
"""The rooms of `training`, and those that each may import."""
ROOMS = {
    "engines": {room: ENGINES[:place] for place, room in enumerate(ENGINES)},
    "serving": SERVING,
    "training": TRAINING,
}
ALONE = {"models": (), "backends": (), "deploy": ("engines.store",)}
"""All that rooms of `serving` may import of this project where edgedit is not installed."""


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


@pytest.mark.parametrize(
    ("package", "room", "may"),
    [(package, room, may) for package, rooms in ROOMS.items() for room, may in rooms.items()],
)
def test_rooms_import_what_they_may(package: str, room: str, may: tuple[str, ...]) -> None:
    rooms = {path.parent.name for path in (_ROOT / package).glob("*/__init__.py")}
    files = list((_ROOT / package / room).rglob("*.py"))
    assert files
    for file in files:
        for name in imports(file):
            first, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            assert first != package or other not in rooms or other in (room, *may), (
                f"{file.relative_to(_ROOT)} imports {name}"
            )


@pytest.mark.parametrize("room", ALONE)
def test_what_runs_without_edgedit_imports_none_of_it(room: str) -> None:
    for file in (_ROOT / "serving" / room).rglob("*.py"):
        for name in imports(file):
            own = name.partition(".")[0] in PACKAGES and not name.startswith(f"serving.{room}")
            assert not own or name.startswith(ALONE[room]), f"{file.relative_to(_ROOT)} imports {name}"
