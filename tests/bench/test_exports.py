from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bench.exports", *words], capture_output=True, text=True, timeout=3000)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_row_is_written_and_others_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "exports.json"
    there = {"method": "sfe", "family": "faces-1024", "seconds": 1.0}
    out.write_text(json.dumps({"rows": [there]}))
    done = _run("--family", "demo-64", "--method", "e4e", "--max-faces", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert {"command", "date", "device", "versions"} <= set(result) and str(tmp_path) not in out.read_text()
    kept, row = result["rows"]
    assert kept == there and (row["method"], row["family"]) == ("e4e", "demo-64")
    assert row["seconds"] > 0 < row["cpu_seconds"] and row["peak_gib"] > 0 and row["engines"] == []
    assert list(row["inversion"]) == ["w"]
    assert set(row["graphs"]) == set(row["verification"]["graphs"]) == {"invert", "edit", "reconstruct"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--family", "faces-1025"), "unknown model family 'faces-1025'"),
        (("--method", "hgfi"), "unknown method 'hgfi'"),
    ],
)
def test_what_is_not_there(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = _run(*words, "--out", str(tmp_path / "exports.json"))
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
