"""The errors of a client; each message is one line that says what to do."""

from __future__ import annotations

from engines.errors import EdgeditError


class ServingError(EdgeditError):
    """Base of all errors of a client; itself a failure inside the server, or an answer that is not understood."""


class DeadlineError(ServingError):
    """The call's time was over before its answer was there."""


class UnavailableError(ServingError):
    """The server cannot be reached, went away, or its model is down; the same call may succeed later."""


class DroppedError(UnavailableError):
    """The other side takes gRPC's connections and ends them, as Triton's port for HTTP does."""


class StaleRegionError(UnavailableError):
    """The server does not know this client's shared memory, as after a restart."""


class OverloadedError(ServingError):
    """The server refused the call since too many are waiting; the same call may succeed later."""


class RequestError(ServingError):
    """The call asks for something that cannot be done; the message is the server's where it was the server that said
    so."""


class NotFoundError(ServingError):
    """The server no longer holds this handle's inversion, and the handle has no image to send again."""


CLOSED = "this client is closed; make another one"
CLOSED_MEANWHILE = "this client was closed while it waited for an answer"

RETRIED = (UnavailableError, OverloadedError)
"""The only errors after which a call is made again: every call of a client may be repeated without harm."""
