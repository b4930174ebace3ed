"""Where the names of TensorRT and TensorRT-RTX stand, and that they are those of what is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

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
