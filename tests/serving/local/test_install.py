"""Set-up: what cannot be is said in one line, what was interrupted is continued, and nothing half-done stays."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engines.errors import RuntimeUnavailableError
from serving.local import install
from serving.local.install import Installation, Interpreter

GOOD = Interpreter("Linux", "x86_64", "2.36", (3, 11), Path("/usr/bin/python3.11"), "/usr/lib")


def one_line(caught: pytest.ExceptionInfo[RuntimeUnavailableError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def cache(no_index: Path, tmp_path: Path) -> Path:
    """An empty cache folder, and no package index."""
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"system": "Darwin", "machine": "arm64"}, "is for Linux on x86_64, and this is Darwin arm64"),
        ({"machine": "aarch64"}, "this is Linux aarch64"),
        ({"glibc": "2.31"}, "needs glibc 2.35, and this system has 2.31"),
        ({"glibc": ""}, "another C library"),
        ({"python": (3, 13)}, "needs Python 3.11 or 3.12, not Python 3.13"),
        ({"libpython": None}, "has no shared library"),
    ],
)
def test_a_machine_that_cannot_run_it_is_told_why(other: dict[str, object], says: str) -> None:
    problem = replace(GOOD, **other).problem()  # type: ignore[arg-type]
    assert problem is not None and says in problem
    assert "\n" not in problem


@pytest.mark.parametrize("other", [{}, {"glibc": "2.35"}, {"glibc": "3.0"}, {"python": (3, 12)}, {"libpython": ""}])
def test_a_machine_that_can_is_not(other: dict[str, object]) -> None:
    assert replace(GOOD, **other).problem() is None  # type: ignore[arg-type]


@pytest.mark.parametrize("named", ["/no/such/python", "/bin/true"])
def test_a_wrong_interpreter_in_the_environment_is_named(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(install.PYTHON_VARIABLE, named)
    said = install.unsupported()
    assert said is not None and f"{install.PYTHON_VARIABLE}={named}" in said
    assert "\n" not in said


def test_a_named_interpreter_is_asked_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    own = install.interpreter()
    monkeypatch.setenv(install.PYTHON_VARIABLE, sys.executable)
    assert install.interpreter() == own


@pytest.mark.triton
def test_what_is_not_installed_is_said_with_the_way_to_it(cache: Path) -> None:
    assert install.find() is None
    with pytest.raises(RuntimeUnavailableError) as caught:
        install.require()
    assert "edgedit serve setup" in one_line(caught)
    assert not cache.exists()


@pytest.mark.triton
def test_without_an_index_one_line_says_what_is_missing_and_nothing_stays(cache: Path) -> None:
    with pytest.raises(RuntimeUnavailableError) as caught:
        install.ensure()
    assert "nvidia-pytriton==0.7.0" in one_line(caught)
    assert [p.name for p in (cache / "triton").iterdir()] == [".lock"]


@pytest.mark.triton
def test_an_interrupted_set_up_goes_on_where_it_stopped(development_server: Installation, cache: Path) -> None:
    folder = cache / "triton"
    folder.mkdir(parents=True)
    server = folder / development_server.server.name
    server.symlink_to(development_server.server)
    half = folder / f".{development_server.stub.name}.0123abcd"
    (half / "lib").mkdir(parents=True)
    lines: list[str] = []
    with pytest.raises(RuntimeUnavailableError) as caught:
        install.ensure(lines.append)
    # The wheel is not asked for again: only the environment is missing.
    assert "pytriton" not in one_line(caught)
    assert len(lines) == 1 and "environment" in lines[0]
    assert sorted(p.name for p in folder.iterdir()) == [".lock", server.name]


@pytest.mark.triton
def test_once_set_up_no_index_is_needed(development_server: Installation, cache: Path) -> None:
    folder = cache / "triton"
    folder.mkdir(parents=True)
    for part in (development_server.server, development_server.stub):
        (folder / part.name).symlink_to(part)
    lines: list[str] = []
    assert install.ensure(lines.append).interpreter == development_server.interpreter
    assert not lines


@pytest.mark.triton
def test_numpy_2_in_the_environment_of_the_models_is_refused(development_server: Installation, tmp_path: Path) -> None:
    development_server.check()
    stub = tmp_path / "stub"
    distribution = (
        stub / "lib" / f"python{development_server.interpreter.minor}" / "site-packages" / "numpy-2.4.6.dist-info"
    )
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.4.6\n")
    (stub / "bin").mkdir()
    (stub / "bin" / "python3").symlink_to(sys.executable)
    with pytest.raises(RuntimeUnavailableError) as caught:
        replace(development_server, stub=stub).check()
    assert "need NumPy 1.26" in one_line(caught) and "2.4.6" in one_line(caught)


@pytest.mark.triton
def test_a_damaged_installation_is_named(development_server: Installation, tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailableError, match="lacks tritonserver"):
        replace(development_server, server=tmp_path).check()
