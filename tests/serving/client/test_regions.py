from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from serving.client.errors import ServingError, UnavailableError
from serving.client.regions import Region, RegionPool
from tests.serving.client.conftest import regions

_ROOT = Path(__file__).resolve().parents[3]


def test_a_region_holds_what_is_sent_before_what_comes_back() -> None:
    region = Region(12)
    try:
        image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
        region.write(image)
        assert region.bytes == 24 and Path("/dev/shm", region.key.removeprefix("/")).stat().st_size == 24
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


def test_a_region_is_lent_once_and_given_up_when_the_size_changes() -> None:
    pool = RegionPool()
    a = Region(12)
    pool.add(a)
    assert pool.take(12) is None
    pool.give_back(a)
    assert pool.take(12) is a and pool.take(12) is None
    pool.give_back(a)
    assert pool.take(24) is None
    assert pool.condemned() == [a.name] and pool.condemned() == []
    assert not regions()
    # A request that ends after the pool was emptied does not bring its region back.
    pool.give_back(a)
    assert pool.take(12) is None


def test_condemned_regions_leave_no_file_in_use_or_not() -> None:
    pool = RegionPool()
    idle, used = Region(12), Region(12)
    pool.add(idle)
    pool.add(used)
    pool.give_back(idle)
    pool.condemn_idle()
    assert regions() == {used.name}
    pool.condemn_all()
    assert not regions() and sorted(pool.condemned()) == sorted([idle.name, used.name])


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
