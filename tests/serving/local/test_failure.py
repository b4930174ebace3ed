from __future__ import annotations

import signal
from pathlib import Path

import pytest

from serving.local.failure import reason, starved

_BEFORE = 'E1126 11:00:00.000000 1 x.cc:1] "of an earlier start"\n'
_NOISE = 'E1126 11:40:41.906583 1 cuda.cc:1] "CudaDriverHelper has not been initialized."\n'
_DEAD = "Internal: Stub process 'edit_0_0' is not healthy."
_MODEL = f"E1126 11:40:42.000000 1 x.cc:1] \"failed to load 'edit' version 1: {_DEAD}\"\n"


@pytest.mark.parametrize(
    ("text", "code", "says", "again"),
    [
        (_NOISE, 1, "its log says nothing", False),
        (_NOISE, None, "its log says nothing", False),
        (_NOISE + 'E1126 11:40:42.000000 1 x.cc:1] "no such folder"\n', 1, "no such folder", False),
        (_NOISE + "error: creating server: bad option\n", 1, "creating server: bad option", False),
        (_MODEL, 1, f"model edit: {_DEAD}", True),
        ("terminate called\n", -signal.SIGABRT, "it died of SIGABRT, as Triton 2.51 may on a machine", True),
        (_NOISE, -signal.SIGSEGV, "it died of SIGSEGV", True),
    ],
)
def test_the_reason_is_one_line_of_this_start(tmp_path: Path, text: str, code: int, says: str, again: bool) -> None:
    log = tmp_path / "log"
    log.write_text(_BEFORE + text)
    why = reason(log, len(_BEFORE), code)
    assert says in why and "\n" not in why and "earlier" not in why
    assert starved(why, code) == again
