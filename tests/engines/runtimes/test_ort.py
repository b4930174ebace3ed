"""Processes of their own: what is asserted is how they begin and end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[3]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

FORKED = """
import os, sys
import numpy as np
from engines.photo import FaceDetector
from engines.session import EditSession

session = EditSession(sys.argv[1], threads=2)
photo = np.random.default_rng(0).integers(0, 256, (1, *session.family.image_shape, 3), np.uint8)
delta = np.ones((session.family.w_rows, session.family.style_dim), np.float32)
inversion = session.invert(photo)
edited = session.edit(inversion, delta)
detector = FaceDetector()
child = os.fork()
if child == 0:
    if sys.argv[2] != "idle":
        assert np.array_equal(session.edit(session.invert(photo), delta), edited)
        assert np.array_equal(session.edit(inversion, delta), edited)
    if sys.argv[2] == "drops":
        session = detector = inversion = None
    if sys.argv[2] == "loads":
        assert np.array_equal(EditSession(sys.argv[1], threads=2).invert(photo).w, inversion.w)
    sys.exit(7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
assert np.array_equal(session.edit(inversion, delta), edited)
"""


def run(script: str, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=_ROOT,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


@needs_fork
@pytest.mark.parametrize("does", ["edits", "drops", "loads", "idle"])
def test_a_forked_process_edits_says_so_once_and_ends(tiny_bundle_path: Path, does: str) -> None:
    done = run(FORKED, tiny_bundle_path, does)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    if does == "idle":
        assert lines == []
    else:
        assert len(lines) == 1 and "load the editor after the fork (gunicorn: without --preload)" in lines[0]


def test_onnxruntime_is_told_to_report_to_nobody_but_where_the_user_decides(tmp_path: Path) -> None:
    told = "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = run(f"import os, engines.runtimes.ort; {told}", HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout == "1\n", done.stderr
    # Where it reports, it keeps a number for the machine.
    assert list(tmp_path.iterdir()) == []
    assert run(f"import os, engines; {told}", ORT_DISABLE_TELEMETRY="0").stdout == "0\n"
