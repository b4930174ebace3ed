"""Somebody else's module with the name of one of our packages is named, and is not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


def run(place: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs a program whose own folder comes before everything else on the path, as that of a script does."""
    script = f"import sys; sys.path[:0] = [{str(place)!r}, {str(_ROOT)!r}]; {code}"
    return subprocess.run([sys.executable, "-c", script], cwd=place, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("engines.py", "import edgedit"),
        ("engines/__init__.py", "import edgedit"),
        ("training.py", "import edgedit; edgedit.evaluate"),
    ],
)
def test_a_module_of_the_users_in_the_way_is_named_and_not_run(tmp_path: Path, file: str, code: str) -> None:
    other = tmp_path / file
    other.parent.mkdir(exist_ok=True)
    other.write_text("print('it ran')\n")
    done = run(tmp_path, code)
    assert done.returncode == 1 and done.stdout == ""
    name = file.partition("/")[0].removesuffix(".py")
    last = done.stderr.splitlines()[-1].removeprefix("ImportError: ")
    assert last.startswith(f"edgedit needs its own package `{name}` from {_ROOT}, but Python takes {other} ")


def test_names_that_are_not_needed_may_be_the_users(tmp_path: Path) -> None:
    (tmp_path / "training.py").write_text("")
    (tmp_path / "engines").mkdir()  # results of the user's, no package: it hides nothing
    done = run(tmp_path, "import edgedit, training; print(edgedit.Editor.__name__, training.__file__)")
    assert (done.stdout, done.returncode) == (f"Editor {tmp_path / 'training.py'}\n", 0), done.stderr
