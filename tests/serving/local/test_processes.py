"""What is read of processes: those of a group, and nothing of one that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

if sys.platform != "linux":
    pytest.skip("for Linux alone", allow_module_level=True)

from serving.local import processes

PARENT = """
import subprocess, sys
data = bytearray(b"x") * 20_000_000
child = subprocess.Popen(["sleep", "60"])
dead = subprocess.Popen(["true"])
while open(f"/proc/{dead.pid}/stat").read().rpartition(")")[2].split()[0] != "Z": pass
files = [open("/dev/null") for _ in range(10)]
print(child.pid, dead.pid, flush=True)
child.wait()
"""


def test_a_group_and_its_figures() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child, dead = map(int, parent.stdout.readline().split())
        found = processes.group(parent.pid)
        # The one that has ended and that nobody has waited for is no longer live.
        assert found.keys() == {parent.pid, child} and dead not in found
        assert found[child] == "sleep"
        assert processes.memory_bytes(parent.pid) > processes.anonymous_bytes(parent.pid) >= 20_000_000
        assert processes.threads(parent.pid) == 1
        assert processes.descriptors(parent.pid) >= 13
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()
    # The child is killed, too, but whoever inherits it has not said so yet: a signal takes effect at its own time.
    deadline = time.monotonic() + 30
    while processes.group(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.group(parent.pid) == {}
    for figure in (processes.memory_bytes, processes.anonymous_bytes, processes.threads, processes.descriptors):
        assert figure(parent.pid) == 0
