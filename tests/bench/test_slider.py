from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.slider import main
from tests.random_bundle import RANDOM_BUNDLE


def run(monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.slider", *map(str, words), "--bundle", str(RANDOM_BUNDLE)])
    main()


def test_a_slider_makes_the_files_of_plain_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "slider.json"
    run(monkeypatch, "--steps", 3, "--passes", 2, "--threads", 1, "--out", out)
    result = json.loads(out.read_text())
    assert result["files_equal"] and (result["steps"], result["threads"]) == (3, 1)
    assert [row["way"] for row in result["rows"]] == ["plain", "slider"]
    for row in result["rows"]:
        assert len(row["seconds"]) == 2 and all(
            0 < a < b for a, b in zip(row["networks_s"], row["seconds"], strict=True)
        )
    assert 0 < result["outside_networks"] < 1 and result["warm_step_s"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--direction", "mohawk"], "random has no mohawk; it has "), (["--steps", 0], "must be 1 or more, got 3 and 0")],
)
def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[Any], message: str) -> None:
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        run(monkeypatch, *words, "--out", tmp_path / "slider.json")
    assert not (tmp_path / "slider.json").exists()
