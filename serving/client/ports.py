"""A client of one protocol at a server's port for the other: what is said then, and how it is found out."""

from __future__ import annotations

import socket

from serving.client.errors import ServingError

_PROBE_SECONDS = 1.0


def http_instead(url: str) -> ServingError:
    """What gRPC is told at a port for HTTP."""
    return ServingError(
        f"{url} speaks HTTP and not gRPC; give the server's port for gRPC (8001 unless it was told otherwise), or "
        "protocol='http'"
    )


def grpc_instead(url: str) -> ServingError:
    """What HTTP is told at a port for gRPC."""
    return ServingError(
        f"{url} does not speak HTTP, as a port for gRPC does not; give the server's port for HTTP (8000 unless it was "
        "told otherwise), or protocol='grpc'"
    )


def speaks_http(url: str) -> bool:
    """Whether what listens at host:port answers a request of HTTP/1, within a second."""
    host, _, port = url.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PROBE_SECONDS) as connection:
            connection.settimeout(_PROBE_SECONDS)
            connection.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            return connection.recv(5) == b"HTTP/"
    except (OSError, ValueError):
        return False
