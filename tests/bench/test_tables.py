"""Tables for pages from made-up results; that the pages hold those of the committed ones is tests/test_blocks.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import tables
from bench.tables import filled, latency, portrait, table5
from engines.errors import OutputError


def test_a_table_follows_its_results() -> None:
    ours, linear = {"identity": 0.9, "change": -19.34}, {"identity": 0.8, "change": -5.04}
    smile = {"identity": 0.7, "change": 0.3, "change_with_room": 0.6677, "faces_with_room": 27}
    table = portrait(
        {
            "photos": 5,
            "edited_photos": 4,
            "reconstruction": {
                key: {"psnr": 30.04, "lpips": 0.0467, "identity": 0.9855} for key in ("ours", "e4e_w_plus")
            },
            "edits": [
                {"direction": "age", "strength": -2.5, "attribute": "age", "ours": ours, "linear": linear},
                {"direction": "smile", "strength": 1.5, "attribute": "smile", "ours": smile, "linear": smile},
                {"direction": "glasses", "strength": 3.0, "attribute": None, "ours": ours, "linear": linear},
            ],
        }
    )
    assert "| this model | 30.0 | 0.047 | 0.986 |" in table and "photos" in table.splitlines()[0]
    assert "| age −2.5 | −19.3 years | 0.90 | −5.0 years | 0.80 |" in table
    assert "| smile +1.5 | p(happy) +0.67, of 27 faces with room for it | 0.70 | +0.67 | 0.70 |" in table
    assert "| glasses +3 | not judged | 0.90 | not judged | 0.80 |" in table


@pytest.mark.parametrize("page", ["no markers", "<!-- t -->\nbegun only", "<!-- t -->\n<!-- /t -->\n" * 2])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(OutputError, match="must have <!-- t --> and <!-- /t --> once"):
        filled(page, "t", "a table")


def test_a_method_that_was_not_timed_or_is_not_in_the_paper_says_so() -> None:
    counted = {"complete_params_m": 20.35, "complete_gmacs": 30.18, "paper_params_m": None, "paper_gmacs": None}
    paper = {"complete_params_m": 2.0, "complete_gmacs": 3.0, "paper_params_m": 1.0, "paper_gmacs": 1.5}
    counts = {
        "rows": [
            {"method": "FS", **paper},
            {"method": "Ours, light", **counted},
            {"method": "Ours, no RGB skip", **paper},
        ]
    }
    lines = table5(counts, {"rows": [{"method": "FS", "ratio": 0.987, "paper_ratio": 1.1667}]}).splitlines()
    assert lines[2:] == [
        "| FS | 1.0 → 2.0 | 1.5 → 3.0 | 1.17 | 0.99 |",
        "| **ours, light** (`faces-1024-mobile`) | – → 20.4 | – → 30.2 | – | not timed |",
    ]


def test_a_page_is_rewritten_between_its_markers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- t -->\nold\n<!-- /t -->\nafter\n")
    monkeypatch.setattr(tables, "TABLES", {"t": (str(page), lambda: "new")})
    monkeypatch.setattr(sys, "argv", ["tables", "--write"])
    tables.main()
    assert page.read_text() == "before\n<!-- t -->\nnew\n<!-- /t -->\nafter\n"
    page.write_text("no markers")
    with pytest.raises(SystemExit, match=r"error: .*must have <!-- t -->"):
        tables.main()
    assert page.read_text() == "no markers"


def test_latencies_stand_beside_their_ratio_memory_and_cold_start() -> None:
    row = {"runtime": "openvino", "precision": "fp32", "graph": "edit"}
    start = {"name": "openvino:fp32", "picture_ms": {"median_ms": 1949.0}, "peak_bytes": 2**30}
    rows = [
        row | {"batch": 1, "median_ms": 182.4, "speedup": 4.64},
        row | {"batch": 4, "median_ms": 9.0, "speedup": 1.0},
    ]
    lines = latency({"graphs": {"edit": {}}, "rows": rows, "starts": [start]}).splitlines()
    assert lines[2:] == ["| openvino:fp32 | 182 (4.6×) | 1.9 | 1.00 |"]
