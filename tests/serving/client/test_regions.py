from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from serving.client.errors import ServingError, UnavailableError
from serving.client.regions import Region
from tests.serving.client.conftest import regions

_ROOT = Path(__file__).resolve().parents[3]


def test_a_region_holds_what_is_sent_before_what_comes_back() -> None:
    region = Region(12)
    try:
        image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
        region.write(image)
        assert Path("/dev/shm", region.name).stat().st_size == 24
        assert np.array_equal(region.read(12, 0).reshape(2, 2, 3), image)
        assert not region.read(12, 12).any()
    finally:
        region.unlink()
    assert not regions()


def test_an_unlinked_region_gives_an_error_and_no_arbitrary_bytes() -> None:
    region = Region(12)
    region.unlink()
    with pytest.raises(ServingError, match="closed while it waited"):
        region.read(12, 12)
    with pytest.raises(ServingError, match="closed while it waited"):
        region.write(np.zeros((2, 2, 3), np.uint8))


def test_more_memory_than_there_is_is_one_line() -> None:
    with pytest.raises(UnavailableError, match="no shared memory is to be had"):
        Region(2**45)
    assert not regions()


_LEAVE = """
import sys, time
from serving.client.regions import Region
region = Region(3_000_000)
print(region.name, flush=True)
time.sleep(600)
"""


def test_a_client_that_is_killed_leaves_no_file() -> None:
    with subprocess.Popen([sys.executable, "-c", _LEAVE], cwd=_ROOT, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        name = client.stdout.readline().strip()
        assert name in regions(client.pid)
        client.send_signal(signal.SIGKILL)
        client.wait()
    until = time.monotonic() + 60
    while regions(client.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not regions(client.pid)
