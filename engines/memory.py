"""The memory that this process may use, where Linux says it."""

from __future__ import annotations

from pathlib import Path

from engines.cpus import control_groups

_ROOT = Path("/")


def memory(root: Path = _ROOT) -> tuple[int | None, int | None]:
    """Bytes that this process may use in all, and that are free now; None where the system does not tell.

    All is what the machine has, or what a control group of version 2 allows if that is less.

    Args:
        root: of the file system that says so.
    """
    sizes = {}
    for line in _text(root / "proc/meminfo").splitlines():
        words = line.split()
        if len(words) == 3 and words[1].isdigit():
            sizes[words[0].rstrip(":")] = int(words[1]) * 1024
    total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
    for folder in control_groups(root):
        most, used = _text(folder / "memory.max").strip(), _text(folder / "memory.current").strip()
        if most.isdigit():
            total = min(int(most), total or int(most))
            if used.isdigit():
                left = max(0, int(most) - int(used))
                free = min(left, left if free is None else free)
    return total, free


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
