"""Clients of a Triton server with an edgedit repository; tritonclient is imported when one is made."""

from __future__ import annotations

from serving.client.asynchronous import AsyncClient
from serving.client.blocking import Client
from serving.client.errors import (
    DeadlineError,
    NotFoundError,
    OverloadedError,
    RequestError,
    ServingError,
    UnavailableError,
)
from serving.client.handle import Handle
from serving.client.wire import DirectionInfo, Profile

__all__ = [
    "AsyncClient",
    "Client",
    "DeadlineError",
    "DirectionInfo",
    "Handle",
    "NotFoundError",
    "OverloadedError",
    "Profile",
    "RequestError",
    "ServingError",
    "UnavailableError",
]
