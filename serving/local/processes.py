"""The processes of a running server. Figures of one that is gone are 0."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from engines.errors import RuntimeUnavailableError

try:
    import psutil
except ModuleNotFoundError as error:
    raise RuntimeUnavailableError("the development server needs psutil: pip install 'edgedit[serve]'") from error


def group(leader: int) -> dict[int, str]:
    """Process id and name of every live process in a process group."""
    members = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                members[process.pid] = process.name()
    return members


def memory_bytes(process: int) -> int:
    """Proportional set size of a process in bytes: a page that n processes share counts as 1/n."""
    return _ask(process, lambda it: it.memory_full_info().pss)


def anonymous_bytes(process: int) -> int:
    """Memory of a process in bytes that is no file's and is not shared: what it has allocated."""
    return _ask(process, lambda it: (memory := it.memory_info()).rss - memory.shared)


def threads(process: int) -> int:
    """Threads of a process."""
    return _ask(process, psutil.Process.num_threads)


def descriptors(process: int) -> int:
    """Open files and connections of a process."""
    return _ask(process, psutil.Process.num_fds)


def _ask(process: int, question: Callable[[psutil.Process], int]) -> int:
    try:
        return question(psutil.Process(process))
    except psutil.Error:
        return 0
