from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.edgedit.conftest import Cli

BOTH = ("--lpips", "{data}", "--identity", "{data}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("e4e",), "stage e4e needs --lpips; `edgedit train --help` says what each file is"),
        (("editor", "--lpips", "{data}"), "stage editor needs --identity"),
        (("directions", "--identity", "{data}"), "stage directions needs --age-gender"),
        (("encoder", "--lpips", "missing.safetensors"), "--lpips: there is no missing.safetensors"),
        (("e4e", *BOTH, "--data", "missing"), "--data: there is no missing"),
        (("generator", "--even", "age"), "--even names a column of the table that --labels gives"),
        (("e4e", *BOTH, "--even", "age", "--labels", "missing.csv"), "--labels: there is no missing.csv"),
        (("generator", "--recipe", "best"), "unknown recipe 'best'; there are "),
        (("e4e", *BOTH, "--device", "abacus"), "--device abacus cannot be used: "),
    ],
)
def test_what_a_stage_lacks(cli: Cli, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    data = tmp_path / "faces"
    data.mkdir()
    given = [word.format(data=data) for word in words]
    if "--data" not in given:
        given += ["--data", str(data)]
    done = cli("train", *given, "--run", tmp_path / "run", "--threads", 1)
    assert done.status == 1 and message in done.error
    assert os.listdir(tmp_path) == ["faces"]
