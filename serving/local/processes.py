"""The processes of a running server, as Linux lists them."""

from __future__ import annotations

from pathlib import Path


def group(leader: int) -> dict[int, str]:
    """Process id and name of every live process in a process group."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue
        # The name stands in brackets and may itself hold brackets and spaces.
        name, _, rest = stat.partition("(")[2].rpartition(")")
        state, _, process_group = rest.split()[:3]
        if int(process_group) == leader and state != "Z":
            found[int(folder.name)] = name
    return found


def memory_bytes(process: int) -> int:
    """Proportional set size of a process in bytes: a page that n processes share counts as 1/n. 0 if it is gone."""
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def anonymous_bytes(process: int | str) -> int:
    """Memory of a process in bytes that is no file's and is not shared: what it has allocated. 0 if it is gone."""
    return _status(process, "RssAnon") * 1024


def threads(process: int | str) -> int:
    """Threads of a process; 0 if it is gone."""
    return _status(process, "Threads")


def descriptors(process: int | str) -> int:
    """Open files and connections of a process; 0 if it is gone."""
    try:
        return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return 0


def _status(process: int | str, name: str) -> int:
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0])
    except OSError:
        pass
    return 0
