"""What a call asks its client to do, one thing at a time.

A call is a generator of these: a client does what it yields and sends in the result, or throws in the error.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from serving.client.deadline import Deadline
from serving.client.regions import Region
from serving.client.wire import Request


@dataclass(frozen=True, eq=False)
class Slot:
    """Wait for one of the client's `concurrency` slots, or take one if one is free; gives whether it was had."""

    deadline: Deadline
    wait: bool = True


@dataclass(frozen=True, eq=False)
class Pause:
    """Sleep."""

    seconds: float


@dataclass(frozen=True, eq=False)
class Compute:
    """Call a function that takes a while; gives its result."""

    function: Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Infer:
    """One inference; gives an Answer."""

    request: Request
    region: Region | None
    deadline: Deadline


@dataclass(frozen=True, eq=False)
class Describe:
    """Gives the configuration of `edit_session` as JSON."""

    deadline: Deadline


@dataclass(frozen=True, eq=False)
class Register:
    """Tell the server of a region."""

    region: Region
    deadline: Deadline


@dataclass(frozen=True, eq=False)
class Unregister:
    """Tell the server to forget a region."""

    name: str
    deadline: Deadline


Effect = Slot | Pause | Compute | Infer | Describe | Register | Unregister
T = TypeVar("T")
Flow = Generator[Effect, Any, T]
