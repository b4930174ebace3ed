"""What all programs of bench do alike: rows that add up over runs, options, and errors in one line."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.program import Rows, named, program
from engines.bundle.provenance import command_line, given
from engines.errors import EdgeditError


def test_a_row_stays_until_it_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    first = Rows(file, "graph", "target")
    first.add({"graph": graph, "target": "sm86", "seconds": 1.0} for graph in ("invert", "edit"))
    first.save("python -m bench.first", limit=3)
    second = Rows(file, "graph", "target")
    second.add(
        [{"graph": "edit", "target": "sm86", "seconds": 2.0}, {"graph": "edit", "target": "sm89", "seconds": 3.0}]
    )
    second.save("python -m bench.second")
    result = json.loads(file.read_text())
    assert [(row["graph"], row["target"], row["seconds"]) for row in result["rows"]] == [
        ("invert", "sm86", 1.0),
        ("edit", "sm86", 2.0),
        ("edit", "sm89", 3.0),
    ]
    assert result["command"] == "python -m bench.second" and {"date", "device", "versions"} <= result.keys()


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"rows": 3}', '{"rows": [{"target": "sm86"}]}', '{"rows": [3]}'])
def test_a_file_of_an_earlier_run_that_is_damaged_is_an_error_and_stays(text: str, tmp_path: Path) -> None:
    (file := tmp_path / "rows.json").write_text(text)
    with pytest.raises(EdgeditError, match=r"rows\.json holds no ") as caught:
        Rows(file, "graph")
    assert "\n" not in str(caught.value) and file.read_text() == text


@dataclass(frozen=True)
class Options:
    """Options of a program."""

    bundle: tuple[str, ...] = ()
    faces: Path | None = None
    passes: int = 3
    smoke: bool = False


def test_errors_are_one_line_and_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: Options) -> None:
        list(named("--bundle", options.bundle))

    monkeypatch.setattr(sys, "argv", ["program", "--bundle", "demo=somewhere", "demo"])
    with pytest.raises(SystemExit, match=r"^error: --bundle demo must be NAME=DIRECTORY$"):
        program(run, Options, "bench.program")


def test_the_command_that_repeats_a_run_names_no_place(tmp_path: Path) -> None:
    options = given(Options(bundle=("a", "b c"), faces=tmp_path, smoke=True))
    assert command_line("run", options) == "run --bundle a b c --faces FACES --smoke"
    # The values of a list stand behind an option each.
    assert (
        command_line("run", options | {"bundle": ["a", "b c"]}) == "run --bundle a --bundle 'b c' --faces FACES --smoke"
    )
