"""Sessions of ONNX Runtime: as many threads as this process may have, and an end for processes that fork."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.cpus import threads as allowed

# Loaded with the first session: help and completion of the command line need none, and it takes a while.
if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"

_sessions: weakref.WeakSet[onnxruntime.InferenceSession] = weakref.WeakSet()


def session(
    model: str | Path | bytes,
    *,
    threads: int = 0,
    options: onnxruntime.SessionOptions | None = None,
    providers: Sequence[str | tuple[str, dict[Any, Any]]] = (CPU,),
) -> onnxruntime.InferenceSession:
    """A session that says nothing on the screen and falls back to no other provider.

    Args:
        threads: intra-operator threads, see `engines.cpus.threads`.
        options: further ones; they are changed.
        providers: as ONNX Runtime takes them.

    Raises:
        ValueError: if `threads` is negative.
        Exception: of ONNX Runtime's own kinds, which have no common base, if it cannot load the model.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions() if options is None else options
    settings.intra_op_num_threads = allowed(threads)
    settings.log_severity_level = 3
    made = onnxruntime.InferenceSession(model, settings, providers=providers, enable_fallback=0)
    _sessions.add(made)
    return made


def _keep_for_good() -> None:
    """Keeps sessions alive in a child: a destroyed session waits for its threads, which have stayed with the parent."""
    for one in _sessions:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_for_good)
