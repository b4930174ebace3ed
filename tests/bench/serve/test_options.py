from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.serve.options import ServeBenchOptions
from engines.errors import EdgeditError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"concurrency": ()}, "--concurrency"),
        ({"concurrency": (1, 1)}, "each once"),
        ({"concurrency": (0, 4)}, "1 to 256"),
        ({"rounds": 0}, "--rounds"),
        ({"seconds": 0.0}, "--seconds"),
        ({"seconds": float("nan")}, "--seconds"),
        ({"samples": 0}, "--samples"),
        ({"threads": -1}, "--threads"),
        ({"transport": ()}, "--transport"),
        ({"plot": Path("x.pdf")}, "must end in .svg, .png"),
        ({"plot": Path("nowhere/x.svg")}, "no directory nowhere"),
        ({"perf_analyzer": Path("nowhere/tool")}, "is not a file"),
    ],
)
def test_what_will_not_do_is_said_before_any_work(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgeditError, match=message) as caught:
        ServeBenchOptions(out=tmp_path / "x.json", **changes).check()
    assert "\n" not in str(caught.value)


def test_one_file_for_two_outputs(tmp_path: Path) -> None:
    with pytest.raises(EdgeditError, match="both name"):
        ServeBenchOptions(out=tmp_path / "x.svg", plot=tmp_path / "x.svg").check()


def test_the_recorded_command_repeats_the_run_and_names_no_place(tmp_path: Path) -> None:
    options = ServeBenchOptions(
        out=tmp_path / "a.json", plot=tmp_path / "a.svg", concurrency=(1, 8), batching=("on",), perf_analyzer=tmp_path
    )
    assert options.command() == (
        "python -m bench.serve --out OUT --plot PLOT --batching on --concurrency 1 8 --perf-analyzer PERF_ANALYZER"
    )
    assert str(tmp_path) not in options.command()
