"""A page of every kind of file: whole, without requests, and nothing of a file as markup."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench.report import page
from engines.errors import EdgeditError
from tests.bench.latency.conftest import result

_RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
Written = Callable[[str, dict[str, Any]], Path]

SAMPLES = [4.0, 4.2, 3.9, 4.1, 4.0, 4.3]


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.identifiers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action") and not (value or "").startswith("#"):
                self.loads.append(str(value))
            if name == "id":
                self.identifiers.append(str(value))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a result to a file of that name."""

    def write(name: str, content: dict[str, Any]) -> Path:
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return write


@pytest.fixture
def latency() -> dict[str, Any]:
    raw = result({"torch:fp32": SAMPLES, "onnxruntime:fp32": [one / 2 for one in SAMPLES]})
    raw["rows"] += [row | {"batch": 4} for row in raw["rows"]]
    stage = {"median_ms": 900.0, "samples_ms": [900.0]}
    stages = dict.fromkeys(("start_ms", "load_ms", "first_ms", "picture_ms"), stage)
    return raw | {"starts": [{"name": "onnxruntime:fp32", "peak_bytes": 2**30, **stages}]}


def test_a_run_is_drawn_and_told(latency: dict[str, Any], written: Written) -> None:
    text = page([written("latency.json", latency)], "edgedit bench report").decode()
    held = Page(text)
    # Ratios, batches, starts.
    assert held.tags.count("svg") == 3 and held.tags.count("figure") == 3 and held.tags.count("tr") == 5
    assert "2.00×" in text and "2.70 s" in text and "1.00</text>" in text
    assert "a machine" in text and "onnxruntime 1.24.1" in text and "prefers-color-scheme: dark" in text


def test_files_of_all_kinds_make_one_page_that_loads_nothing(latency: dict[str, Any], written: Written) -> None:
    files = [written("latency.json", latency), _RESULTS / "table5-times-cpu.json", _RESULTS / "serve-portrait.json"]
    text = page(files).decode()
    held = Page(text)
    assert held.loads == [] and not {"script", "link", "img", "iframe", "metadata"} & set(held.tags)
    # But for the names of XML's vocabularies.
    assert set(re.findall(r"https?://[^\"' )]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert len(held.identifiers) == len(set(held.identifiers))
    assert held.tags.count("section") == 3 and "HyperStyle" in text and "shm" in text


def test_what_stands_in_a_file_is_no_markup(latency: dict[str, Any], written: Written) -> None:
    evil = "<script>alert(1)</script>$\\frac{"
    raw = json.loads(json.dumps(latency).replace("onnxruntime", "RUNTIME")) | {"command": evil}
    for row in raw["rows"]:
        row["runtime"] = row["runtime"].replace("RUNTIME", evil)
    held = Page(page([written("latency.json", raw)]).decode())
    assert "script" not in held.tags


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no JSON object"),
        ("{", "holds no JSON object"),
        ('{"rows": [{"speedup": 1}]}', "is not what `edgedit bench latency` writes: command"),
        ('{"rows": [{"way": "grpc"}]}', "cannot be drawn: KeyError"),
        ('{"rows": [{"complete": {}}], "family": 1}', "cannot be drawn: KeyError"),
        ('{"rows": []}', "is not a file of `edgedit bench latency`"),
    ],
)
def test_files_of_no_kind_are_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text(content)
    with pytest.raises(EdgeditError, match=re.escape(message)):
        page([file])
    with pytest.raises(EdgeditError, match="No such file"):
        page([tmp_path / "none.json"])
