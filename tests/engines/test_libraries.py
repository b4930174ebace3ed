"""Where the names of TensorRT and TensorRT-RTX stand, and that they are those of what is installed."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from engines.libraries import LIBRARIES, Library

_ROOT = Path(__file__).resolve().parents[2]


def test_one_place_knows_the_import_name():
    named = [
        path.relative_to(_ROOT).as_posix()
        for folder in ("bench", "edgedit", "engines", "export", "serving", "tests", "training")
        for path in (_ROOT / folder).rglob("*.py")
        if "tensorrt_" + "rtx_bindings" in path.read_text()
    ]
    assert named == ["engines/libraries.py"]


def test_what_is_installed_is_found_and_what_is_not_is_not():
    known = Library("numpy", "NumPy", "none", ("no-such-distribution", "numpy"))
    assert known.installed and known.distribution == "numpy"
    unknown = Library("no_such_module", "Nothing", "none", ("no-such-distribution",))
    assert not unknown.installed and unknown.distribution is None


def test_looking_imports_nothing():
    script = (
        "import sys\nfrom engines.libraries import LIBRARIES\n"
        "[(library.installed, library.distribution) for library in LIBRARIES.values()]\n"
        "print([library.module for library in LIBRARIES.values() if library.module in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=_ROOT, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.rtx
def test_the_module_belongs_to_the_distribution():
    library = LIBRARIES["tensorrt-rtx"]
    owners = metadata.packages_distributions()[library.module]
    assert library.distribution in [owner.replace("_", "-") for owner in owners]


def _imported(path: Path) -> set[str]:
    """Top-level modules that a file imports, at its head or later; not what only type checkers see."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    named = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in plain | named} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("library", LIBRARIES.values(), ids=lambda library: library.extra)
def test_the_extra_asks_for_all_that_building_imports(library: Library) -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"][library.extra]
    asked = {Requirement(line).name for line in (*project["dependencies"], *extra)}
    assert asked & set(library.distributions)
    files = [
        file for folder in ("building", "precision", "inspector") for file in (_ROOT / "engines" / folder).glob("*.py")
    ]
    imported = set().union(*map(_imported, [*files, _ROOT / "engines" / "runtimes" / "backend.py"])) - {"engines"}
    names = {"google": "protobuf", "ml_dtypes": "ml-dtypes", "onnx_ir": "onnx-ir", "PIL": "pillow"}
    assert {"onnx", "ml_dtypes"} < imported and {names.get(name, name) for name in imported} <= asked


def test_rtx_is_locked_in_the_versions_that_its_extra_asks_for() -> None:
    extra = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["rtx"]
    lock = (_ROOT / "requirements" / "rtx.lock").read_text().splitlines()
    locked = [line for line in lock if not line.startswith("#")]
    assert locked and locked == [line for line in extra if line.startswith("tensorrt-rtx-")]
