from __future__ import annotations

from pathlib import Path

import pytest

from edgedit.batching.edits import EXAMPLE, MAX_BYTES, EditsError, Options, read_edits


def test_the_example_is_read(tmp_path: Path) -> None:
    path = tmp_path / "edits.yaml"
    path.write_text(EXAMPLE)
    edits = read_edits(path)
    assert {name: edit.strengths for name, edit in edits.items()} == {
        "smiling": {"smile": 1.5},
        "younger": {"age": -2.0, "smile": 0.5},
    }
    assert edits["smiling"].options == Options()
    assert edits["younger"].options == Options(paste=True, format="jpeg", quality=90, clamp=False)


def test_a_mapping_says_the_same_as_a_file() -> None:
    edits = read_edits({"old": {"age": 2, "options": {"paste": "detail"}}})
    assert edits["old"].strengths == {"age": 2.0} and edits["old"].options.paste == "detail"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": there are no edits; write NAME: {DIRECTION: STRENGTH}"),
        ("- a\n- b\n", ": there are no edits"),
        ("a: 3\n", ":1: a is no edit; write a: {DIRECTION: STRENGTH}"),
        ("a: {}\n", ":1: a names no direction"),
        ("a:\n  options: {quality: 3}\n", ":1: a names no direction"),
        ("a:\n  smile: '2'\n", ":2: a.smile: Input should be a valid number; write smile: 1.5, say"),
        ("a:\n  age: 1\n  smile: true\n", ":3: a.smile: Input should be a valid number"),
        ("a:\n  smile: .nan\n", ":2: a.smile: Input should be a finite number"),
        ("a:\n  smile: 1\n  options: {paste: maybe}\n", ":3: a.options.paste: paste is true, false, auto, detail"),
        ("a:\n  smile: 1\n  options:\n    quality: 900\n", ":4: a.options.quality: Input should be less than or equal"),
        ("a:\n  smile: 1\n  options:\n    format: tiff\n", ":4: a.options.format: Input should be 'png', 'jpeg' or"),
        ("a:\n  smile: 1\n  options:\n    size: 9\n", ":4: a.options.size: there is no such option; there are paste,"),
        ("a: {smile: 1}\nb: {age: 1}\na: {smile: 2}\n", ":3: a stands twice"),
        ("a:\n  smile: 1\n  smile: 2\n", ":3: smile stands twice"),
        ("Old: {age: 1}\nold: {age: 2}\n", ":2: old differs from another edit in case alone"),
        ("../x: {smile: 1}\n", ":1: '../x' is no name for an edit"),
        (".edgedit: {smile: 1}\n", ":1: '.edgedit' is no name for an edit"),
        ("on: {smile: 1}\n", ":1: True is no name for an edit"),
        ("a: {on: 1}\n", ":1: a has a direction whose name is no text"),
        ("a: {smile: 1\nb: 3\n", ":2: not YAML: expected ',' or '}'"),
        ("? [a]\n: 3\n", ":1: a name before a colon is a word"),
        ("a: 2026-99-99\n", " is not YAML: month must be in 1..12"),
        ("a: !!python/object/apply:os.getcwd []\n", "not YAML: could not determine a constructor"),
        ("[" * 3_000, " is not YAML: "),
        ("#" * (MAX_BYTES + 1), " is larger than 1024 KiB"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "edits.yaml"
    path.write_text(text)
    with pytest.raises(EditsError) as refused:
        read_edits(path)
    said = str(refused.value)
    assert message in said and said.startswith(str(path)) and "\n" not in said


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EditsError, match=r"none\.yaml: No such file or directory; `edgedit batch --example`"):
        read_edits(tmp_path / "none.yaml")
