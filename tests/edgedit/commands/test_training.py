from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.edgedit.conftest import Cli

BOTH = ("--lpips", "{data}", "--identity", "{data}")
JUDGES = ("--age-gender", "{data}", "--expression", "{data}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "e4e"), "stage e4e needs --lpips; `edgedit train --help` says what each file is"),
        (("train", "editor", "--lpips", "{data}"), "stage editor needs --identity"),
        (
            ("directions", "fit", "--identity", "{data}"),
            "fitting directions needs --age-gender; `edgedit directions fit",
        ),
        (("directions", "calibrate"), "calibrating directions needs --identity; `edgedit directions calibrate --help`"),
        (("evaluate", "--identity", "{data}"), "measuring needs --lpips; `edgedit evaluate --help` says what"),
        (("evaluate", *BOTH, "--pose", "missing.onnx", *JUDGES), "--pose: there is no missing.onnx"),
        (("train", "encoder", "--lpips", "missing.safetensors"), "--lpips: there is no missing.safetensors"),
        (("train", "e4e", *BOTH, "--faces", "missing"), "--faces: there is no missing"),
        (("train", "generator", "--even", "age"), "--even names a column of the table that --labels gives"),
        (("train", "e4e", *BOTH, "--even", "age", "--labels", "missing.csv"), "--labels: there is no missing.csv"),
        (("train", "generator", "--recipe", "best"), "unknown recipe 'best'; there are "),
        (("train", "e4e", *BOTH, "--device", "abacus"), "--device abacus cannot be used: "),
        (("train", "e4e", *BOTH, "--processes", "0"), "--processes must be 1 or more, got 0"),
        (
            ("train", "e4e", *BOTH),
            "mobilestylegan`) and name the file with --generator, or name",
        ),
        (("train", "pairs"), "the recipe for faces-1024-mobile trains no generator: import one"),
        (("train", "generator"), "the generator of this run is imported, not trained; go on with the next stage"),
        (("directions", "calibrate", "--identity", "{data}"), "the recipe for faces-1024-mobile trains no generator"),
    ],
)
def test_what_a_stage_lacks(cli: Cli, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    data = tmp_path / "faces"
    data.mkdir()
    given = [word.format(data=data) for word in words]
    if "--faces" not in given:
        given += ["--faces", str(data)]
    done = cli(*given, "--run", tmp_path / "run", "--threads", 1)
    assert done.status == 1 and message in done.error
    assert os.listdir(tmp_path) == ["faces"]
