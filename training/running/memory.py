"""The C library's allocator, told to keep the memory of freed tensors."""

from __future__ import annotations

import ctypes
import ctypes.util

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of glibc's `mallopt`."""


def keep_freed_memory() -> bool:
    """Lets large tensors reuse the memory of those before them.

    glibc gives every tensor of more than 32 MB fresh pages and returns them when it is freed. A training step
    on a CPU then spends as long in the kernel, which clears pages, as in arithmetic.

    Returns:
        Whether the C library is one that can be told.
    """
    name = ctypes.util.find_library("c")
    mallopt = getattr(ctypes.CDLL(name), "mallopt", None) if name else None
    if mallopt is None:
        return False
    return all(mallopt(key, value) for key, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**28)))
