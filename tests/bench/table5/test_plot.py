"""The picture and the table of a run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from bench.table5.report import report
from training.methods import COMPARED

pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
TITLES = [method.info.title for method in COMPARED.values()]


def texts(path: Path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_ten_dots_measured_and_eight_published(made_up: dict[str, Any], tmp_path: Path) -> None:
    from bench.table5.plot import draw

    draw(made_up, tmp_path / "a.svg")
    found = texts(tmp_path / "a.svg")
    assert {title: found.count(title) for title in TITLES} == {
        t: 1 if t in ("HyperStyle", "Ours, light") else 2 for t in TITLES
    }
    assert any("NVIDIA GeForce RTX 3090" in text for text in found)
    assert any("a machine" in text for text in found) and "measured: faces-1024, eager, fp32, random weights" in found
    draw(made_up, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_no_label_covers_another(made_up: dict[str, Any]) -> None:
    from bench.table5.plot import figure

    drawn = figure(made_up)
    for axis in drawn.axes:
        boxes = [text.get_window_extent() for text in axis.texts if text.get_text() in TITLES]
        assert len(boxes) >= 8
        frame = axis.get_window_extent()
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_one_method_without_the_one_that_others_are_compared_with(made_up: dict[str, Any], tmp_path: Path) -> None:
    from bench.table5.plot import draw

    few = copy.deepcopy(made_up)
    few["rows"] = [row for row in few["rows"] if row["key"] == "hyperstyle"]
    draw(few, tmp_path / "few.svg")
    assert texts(tmp_path / "few.svg").count("HyperStyle") == 1
    draw(few, tmp_path / "few.png")
    assert (tmp_path / "few.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_fits_80_columns(made_up: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    next(row for row in made_up["rows"] if row["key"] == "ours")["ratio"] = 5.4867
    report(made_up, Console(width=80))
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    cells = {line.split()[0]: line.split()[1:] for line in lines if line.split() and line.split()[0] in TITLES}
    # GMACs; seconds of invert, edit and both with its spread; ratios, here and in the paper; GiB.
    assert cells["Ours"] == ["811.3", "3.25", "4.87", "8.11", "(0.16)", "5.49", "3.36", "3.00"]
    assert cells["HyperStyle"][-3:] == ["-", "-", "3.00"]
    text = " ".join(" ".join(lines).split())
    assert "of 5 passes of 9: the time was up" in text and "not measured: fs: no time was left" in text
