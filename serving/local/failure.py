"""The reason why a server did not start, in one line, and whether another start may help."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

_MODEL_FAILED = re.compile(r"failed to load '([^']+)' version \d+: (.*)")
_START_FAILED = re.compile(r"^(?:E\d{4} .*?\] |error: |\S*tritonserver: )((?!\"?CudaDriver).*)", re.MULTILINE)
_MOST = 2**20
"""Bytes of a log that are looked at."""


def reason(log: Path, written: int, code: int | None) -> str:
    """The reason that a log gives after its first `written` bytes, and that the server's exit code does."""
    said = "its log says nothing"
    with contextlib.suppress(OSError), log.open("rb") as stream:
        stream.seek(written)
        text = stream.read(_MOST).decode(errors="replace")
        if failed := _MODEL_FAILED.search(text):
            return f"model {failed[1]}: {failed[2]}".rstrip('" ')
        if errors := _START_FAILED.findall(text):
            said = errors[-1].strip('" ')
    if code is not None and code < 0:
        return f"it died of {signal.Signals(-code).name}, as Triton 2.51 may on a machine that is too busy; {said}"
    return said


def starved(why: str, code: int | None) -> bool:
    """Whether the server, or the process of a model, died without a reason of its own.

    Triton 2.51 takes the process of a model for dead if it gets no processor for a second, and what both of them hold
    in shared memory is broken once it goes on.
    """
    return "is not healthy" in why or (code is not None and code < 0)
