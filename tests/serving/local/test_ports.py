from __future__ import annotations

import socket
from pathlib import Path

import pytest

from serving.local import ports


def test_picked_ports_are_free_and_no_client_is_given_one() -> None:
    picked = ports.pick(20)
    assert len(set(picked)) == 20
    assert all(map(ports.free, picked))
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not any(first <= port <= last for port in picked)


def test_a_port_that_is_listened_on_is_in_use_until_it_is_not() -> None:
    port = ports.pick(1)[0]
    assert not ports.answered(port)
    with socket.create_server((ports.HOST, port)):
        assert ports.answered(port)
        with pytest.raises(ports.PortError, match=f"^port {port} for HTTP is in use"):
            ports.check(port, "HTTP")
    ports.check(port, "HTTP")


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ports.PortError, match="between 1 and 65535"):
        ports.check(port, "HTTP")
