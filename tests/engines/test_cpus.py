"""Trees that look as Linux shows them; the affinity mask is this process' own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engines.cpus import threads, usable

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity masks")
_ROOT = Path(__file__).resolve().parents[2]
V1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
V1 += "32 31 0:29 {} /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,{}"
V2 = "30 23 0:27 {} /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate"


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask of sixteen processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))


def tree(root: Path, group: str, mounts: str, **files: str) -> Path:
    """Files by their path below /sys/fs/cgroup, with __ for a slash and _dot_ for a dot."""
    written = {"proc/self/cgroup": group, "proc/self/mountinfo": mounts}
    written |= {"sys/fs/cgroup/" + k.replace("__", "/").replace("_dot_", "."): v for k, v in files.items()}
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("quota", "allowed"),
    [("200000 100000", 2), ("150000 100000", 1), ("20000 100000", 1), ("max 100000", 16), ("9900000 100000", 16)],
)
def test_quota_of_version_2(many: None, tmp_path: Path, quota: str, allowed: int) -> None:
    root = tree(tmp_path, "0::/", V2.format("/"), cpu_dot_max=quota)
    assert usable(root) == allowed and threads(64, root) == allowed and threads(1, root) == 1


@pytest.mark.parametrize("line", ["4:cpu,cpuacct:/", "7:cpuset:/elsewhere\n1:cpu:/"])
@pytest.mark.parametrize(("quota", "allowed"), [("300000", 3), ("-1", 16)])
def test_quota_of_version_1(many: None, tmp_path: Path, line: str, quota: str, allowed: int) -> None:
    files = {"cpu__cpu_dot_cfs_quota_us": quota, "cpu__cpu_dot_cfs_period_us": "100000"}
    assert usable(tree(tmp_path, line, V1.format("/", "cpuacct,cpu"), **files)) == allowed
    # The same files of a hierarchy that shares out memory say nothing.
    assert usable(tree(tmp_path, line, V1.format("/", "memory"), **files)) == 16


def test_the_tightest_of_the_groups_above_counts(many: None, tmp_path: Path) -> None:
    quotas = {"a__cpu_dot_max": "200000 100000", "a__b__cpu_dot_max": "800000 100000", "c__cpu_dot_max": "1 100000"}
    assert usable(tree(tmp_path, "0::/a/b", V2.format("/"), **quotas)) == 2


@pytest.mark.parametrize(
    ("path", "shown"), [("/docker/ab", "/docker/ab"), ("/docker/ab", "/"), ("/docker/ab/inner", "/docker/ab")]
)
def test_a_container_finds_its_group_where_it_is_mounted(many: None, tmp_path: Path, path: str, shown: str) -> None:
    root = tree(tmp_path, f"0::{path}", V2.format(shown), cpu_dot_max="400000 100000")
    assert usable(root) == 4


def test_what_cannot_be_read_allows_all_of_the_mask(many: None, tmp_path: Path) -> None:
    assert usable(tmp_path) == 16
    for quota in ("", "nonsense", "100000", "0 0", "-5 100000", "1 2 3"):
        assert usable(tree(tmp_path, "0::/", V2.format("/"), cpu_dot_max=quota)) == 16
    assert usable(tree(tmp_path, "\n:::\nx", "half a line\n - \n1 2 3 - cgroup2", cpu_dot_max="100000 100000")) == 16


def test_by_itself_a_network_gets_a_thread_per_core(many: None, tmp_path: Path) -> None:
    assert threads(0, tmp_path) == 16
    for cpu in range(16):
        file = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(f"{cpu % 8},{cpu % 8 + 8}\n")
    assert threads(0, tmp_path) == 8 and threads(12, tmp_path) == 12
    assert threads(0, tree(tmp_path, "0::/", V2.format("/"), cpu_dot_max="300000 100000")) == 3


def test_numbers_that_cannot_be() -> None:
    assert threads(np.int64(1)) == 1
    for wrong in (-1, 1.5, "2", None, True):
        with pytest.raises(ValueError, match="threads must be 0 or more, got "):
            threads(wrong)  # type: ignore[arg-type]


def test_a_session_has_no_more_threads_than_the_mask_has_processors(tiny_bundle_path: Path) -> None:
    script = """
import os, sys
from engines.session import EditSession

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
before = len(os.listdir("/proc/self/task"))
for threads in (0, 8):
    EditSession(sys.argv[1], threads=threads).warm_up()
    assert len(os.listdir("/proc/self/task")) == before, threads
"""
    subprocess.run([sys.executable, "-c", script, tiny_bundle_path], cwd=_ROOT, check=True, timeout=120)
