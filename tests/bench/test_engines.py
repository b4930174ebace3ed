from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.random_bundle import RANDOM_BUNDLE

pytestmark = pytest.mark.rtx


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bench.engines", *words], capture_output=True, text=True, timeout=300)


def test_rows_are_written_and_kept(tmp_path: Path) -> None:
    """A second run for another target adds to the file; the bundle itself stays as it was."""
    out = tmp_path / "builds.json"
    for target in ("sm86", "sm89"):
        done = _run(
            "--bundle", f"demo={RANDOM_BUNDLE}", "--target", target, "--graph", "reconstruct", "--out", str(out)
        )
        assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert [(row["target"], row["graph"]) for row in result["rows"]] == [
        ("sm86", "reconstruct"),
        ("sm89", "reconstruct"),
    ]
    for row in result["rows"]:
        assert (
            row["share"] >= 0.98
            and row["engine_mb"] > 0
            and row["seconds"] > 0 < row["cpu_seconds"]
            and row["batch"] == "1:1:8"
        )
    assert {"command", "date", "device", "versions"} <= set(result)
    assert not (RANDOM_BUNDLE / "engines").exists()


def test_a_bundle_without_a_name(tmp_path: Path) -> None:
    done = _run("--bundle", str(RANDOM_BUNDLE), "--target", "sm86", "--out", str(tmp_path / "builds.json"))
    assert done.returncode == 1 and "must be NAME=DIRECTORY" in done.stderr and "Traceback" not in done.stderr
