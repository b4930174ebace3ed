"""Free ports on loopback."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from engines.errors import EdgeditError

HOST = "127.0.0.1"
_ASSIGNED = Path("/proc/sys/net/ipv4/ip_local_port_range")


class PortError(EdgeditError):
    """A port is taken or impossible."""


def free(port: int) -> bool:
    """Whether a server could listen on a port now."""
    with socket.socket() as probe:
        # Connections of a server that has just ended may linger; they keep nobody from listening.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def answered(port: int) -> bool:
    """Whether a server listens on a port now."""
    try:
        socket.create_connection((HOST, port), timeout=2).close()
    except OSError:
        return False
    return True


def check(port: int, purpose: str) -> None:
    """Raises a PortError, before a start, for a port that cannot be had."""
    if not 1 <= port <= 65535:
        raise PortError(f"port {port} for {purpose} is not between 1 and 65535")
    if not free(port):
        raise PortError(f"port {port} for {purpose} is in use or not yours to take: choose another one, or 0")


def pick(count: int) -> list[int]:
    """Different free ports below those the system assigns to clients.

    A port that clients may be given would not do for a server that is restarted: while it is down, a client that keeps
    calling it can be given that very port, and then holds it.

    Raises:
        PortError: if there are not enough.
    """
    try:
        below = int(_ASSIGNED.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        below = 32768
    candidates = range(10000, below) if below > 11000 else range(61000, 65536)
    chosen: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(chosen) == count:
            return chosen
        if free(port):
            chosen.append(port)
    raise PortError(f"no {count} free ports on {HOST}")
