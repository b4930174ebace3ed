"""The limits of the gateway: one frozen dataclass, checked once, so that none is written down twice."""

from __future__ import annotations

import ipaddress
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path

from engines.errors import EdgeditError
from engines.photo import MAX_MEGAPIXELS
from engines.photo.credentials import Credentials

JSON_BYTES = 64 * 1024
"""Largest body that is not a photo; an edit takes a few hundred bytes."""


class GatewayError(EdgeditError):
    """The gateway cannot start as it was asked to."""


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """Limits and addresses of one gateway; times in seconds, sizes in bytes.

    The memory that requests may take is bounded by `running` photos decoded (3 bytes a pixel, three of them while a
    face is put back) and `running + waiting` bodies of `body_bytes`; where photos are kept, those
    take `photo_memory` more, and so does what was found in them.

    Raises:
        GatewayError: at construction, for a limit that allows nothing, or an address that needs keys and has none.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: Path | None = None
    """File of API keys (see `serving.gateway.keys`). Without one only a loopback address may be bound."""

    credentials: bool = True
    """Pictures say that they were edited, see `engines.photo.credentials`."""
    private_key: Path | None = None
    """The key that signs that, with `certificate`; None: a key of this user's own, made at first need."""
    certificate: Path | None = None
    edit_list: bool = True
    """Whether credentials name the edits too."""

    body_bytes: int = 20 * 1024 * 1024
    """Largest photo, as sent."""
    megapixels: float = 32.0
    """Largest photo, decoded."""

    photo_seconds: float = 0.0
    """Time that a photo is kept in memory after its last use; 0 keeps none."""
    photo_memory: int = 512 * 1024 * 1024
    """Memory that photos that are kept may take; those longest unused leave first."""

    rate: float = 10.0
    """Requests a second that one key may make for long."""
    burst: int = 20
    """Requests that one key may make at once after a pause."""
    running: int = 8
    """Requests that decode, wait for Triton or encode at a time."""
    waiting: int = 32
    """Further requests that send their body or wait for their turn; one more is refused."""
    per_key: int = 16
    """Requests of one key among the running and waiting ones."""
    workers: int = min(4, os.cpu_count() or 1)
    """Threads that decode, align and encode."""

    timeout: float = 30.0
    """Deadline of a request that names none."""
    max_timeout: float = 60.0
    """Longest deadline that X-Request-Timeout may ask for."""
    head_timeout: float = 10.0
    """Time that the head of a request may take to arrive."""
    body_timeout: float = 20.0
    """Time that the body of a request may take to arrive."""
    connections: int = 512
    """Open connections; one more is refused."""

    canary_timeout: float = 5.0
    """Time that the inference behind /readyz may take."""
    canary_cache: float = 1.0
    """Time that its answer is passed on before it is asked again."""
    drain_delay: float = 5.0
    """Time after SIGTERM in which /readyz answers 503 before the socket closes, so that balancers look elsewhere."""
    drain_timeout: float = 30.0
    """Time that running requests have to finish once the socket is closed."""

    # By hand: nothing is read from the environment, which pydantic-settings is for, and pydantic's errors would have to
    # be turned into these lines wherever settings are made.
    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or field.name == "port":
                continue
            floor_ok = (
                value >= 0 if field.name in ("waiting", "drain_delay", "canary_cache", "photo_seconds") else value > 0
            )
            if not floor_ok or not math.isfinite(value):
                raise GatewayError(f"{field.name.replace('_', '-')} must be positive and finite, got {value}")
        if not 0 <= self.port <= 65535:
            raise GatewayError(f"port must be 0 to 65535, got {self.port}")
        if self.megapixels > MAX_MEGAPIXELS:
            raise GatewayError(f"megapixels must be at most {MAX_MEGAPIXELS}, got {self.megapixels:g}")
        if self.timeout > self.max_timeout:
            raise GatewayError(f"timeout {self.timeout:g} is over max-timeout {self.max_timeout:g}")
        if self.api_keys is None and not is_loopback(self.host):
            raise GatewayError(
                f"without --api-keys only loopback may be bound, not {self.host}; make a key with `edgedit serve key`"
            )

    def open_credentials(self) -> Credentials | None:
        """The writer of what pictures say of their edits; None where they say nothing.

        Raises:
            CredentialsError: if the key or its certificate will not do.
        """
        if not self.credentials:
            return None
        return Credentials(self.private_key, self.certificate, edits=self.edit_list)


def is_loopback(host: str) -> bool:
    """Whether a host, given as a name or an address, is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
