"""The processors that this process may use, and how many threads that allows: in a container both are fewer than the
machine has, and threads beyond them wait for one another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_FASTER = frozenset(
    "avx avx2 fma f16c avx512f avx512_vnni avx512_bf16 avx_vnni amx_int8 amx_bf16"
    " asimd asimdhp asimddp i8mm bf16 sve".split()
)
"""Names of instruction sets of x86 and of ARM, as Linux calls them."""


def usable(root: Path = _ROOT) -> int:
    """Processors' worth of time that this process may use, at least 1.

    That is the size of its affinity mask, or what the quotas of its control group and of those above it leave, in
    whole processors, if that is less. Control groups are Linux', of either version.

    Args:
        root: of the file system that says so.
    """
    cpus = len(_affinity()) or os.cpu_count() or 1
    return max(1, min([cpus, *map(int, _quotas(root))]))


def total() -> int:
    """Processors that the machine has, whoever may use them."""
    return os.cpu_count() or 1


def features(root: Path = _ROOT) -> list[str]:
    """Sets of instructions that the processor has and for which ONNX Runtime has faster kernels, such as avx2 or
    asimddp; empty where the system does not tell.

    Args:
        root: as for `usable`.
    """
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return [word for word in words.split() if word in _FASTER]
    return []


def threads(requested: int, root: Path = _ROOT) -> int:
    """The number of threads that work on one network.

    Args:
        requested: as many as a user asks for, never more than `usable`; 0 takes one per core of the processors in the
            affinity mask, within the same bound. Hyperthreads of a core gain nothing here.
        root: as for `usable`.

    Raises:
        ValueError: if `requested` is no whole number, or negative.
    """
    if isinstance(requested, bool) or not isinstance(requested, Integral) or requested < 0:
        raise ValueError(f"threads must be 0 or more, got {requested!r}")
    return min(int(requested) or _cores(root), usable(root))


def _affinity() -> frozenset[int]:
    # macOS has no such masks.
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def _cores(root: Path) -> int:
    siblings = set()
    for cpu in _affinity():
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        siblings.add(_read(topology) or str(cpu))
    return len(siblings) or os.cpu_count() or 1


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _quotas(root: Path) -> Iterator[float]:
    """Processors that control groups of this process allow."""
    for folder in control_groups(root):
        # Version 2 has both numbers in a file ("max" for no quota), version 1 each in its own (-1 for none).
        words = _read(folder / "cpu.max").split()
        words = words or [_read(folder / f"cpu.cfs_{which}_us") for which in ("quota", "period")]
        try:
            quota, period = map(int, words)
        except ValueError:
            continue
        if quota > 0 and period > 0:
            yield quota / period


def control_groups(root: Path) -> Iterator[Path]:
    """Folders of the groups that share out processors among which this process is, up to those that are mounted.

    See proc_pid_mountinfo(5) and cgroups(7). Inside a container the process' own path may be the host's, and then the
    mounted folder itself is the container's.
    """
    paths = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers or "cpu" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = PurePosixPath(path)
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mount, _, source = (part.split() for part in line.partition(" - "))
        if len(mount) < 5 or len(source) < 3 or source[0] not in paths:
            continue
        if source[0] == "cgroup" and "cpu" not in source[2].split(","):
            continue
        top, path, shown = root / mount[4].lstrip("/"), paths[source[0]], PurePosixPath(mount[3])
        inside = path.relative_to(shown) if path.is_relative_to(shown) else PurePosixPath()
        yield from (top / part for part in (inside, *inside.parents))
