"""Turns the exceptions of tritonclient and of the libraries below it into a client's own."""

from __future__ import annotations

import re
import socket
import sys

from serving.client.errors import (
    DeadlineError,
    DroppedError,
    NotFoundError,
    OverloadedError,
    RequestError,
    ServingError,
    StaleRegionError,
    UnavailableError,
)
from serving.client.regions import PREFIX

# Names of gRPC's codes, and what HTTP says in their place.
_CODES = {
    "400": "INVALID_ARGUMENT",
    "401": "PERMISSION_DENIED",
    "403": "PERMISSION_DENIED",
    "404": "NOT_FOUND",
    "408": "DEADLINE_EXCEEDED",
    "413": "INVALID_ARGUMENT",
    "429": "RESOURCE_EXHAUSTED",
    "501": "UNIMPLEMENTED",
    "502": "UNAVAILABLE",
    "503": "UNAVAILABLE",
    "504": "DEADLINE_EXCEEDED",
}
_BUSY = ("exceeds maximum queue size", "request timeout expired")
_STUB = re.compile(r"stub process .* is not healthy", re.IGNORECASE | re.DOTALL)
_REQUEST_ID = re.compile(r"^\[request id: [^\]]*\]\s*")
_REFUSED = ("INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION", "UNIMPLEMENTED", "ALREADY_EXISTS")
_REGION = re.compile(r"unable to find .*shared memory region", re.IGNORECASE)
_HTTP_INSTEAD = re.compile(r"http1\.x server|failed parsing http/2", re.IGNORECASE)
"""gRPC's words for a server that speaks HTTP/1."""
_DROPPED = re.compile(r"failed to connect to all addresses.*(socket closed|connection reset)", re.IGNORECASE)
"""gRPC's words where no connection comes about though somebody listens."""
_GRPC_INSTEAD = re.compile(r"bad status line|expected http/", re.IGNORECASE)
"""The words of parsers of HTTP/1 for a server that begins in binary, as gRPC's HTTP/2 does."""
_LONGEST = 500
"""Characters of a message."""
_PROBE_SECONDS = 1.0


def translate(error: BaseException, url: str) -> ServingError:
    """The client's error for any exception of a request to `url`; one that is the client's already is returned.

    What a model raised is not repeated: it holds paths of the server, whose log has it.
    """
    if isinstance(error, ServingError):
        return error
    code, message = _code(error), _message(error)
    if code is None:
        return _without_code(error, url)
    if PREFIX in message and _REGION.search(message):
        return StaleRegionError(f"{url} was restarted and must be told of shared memory again")
    if "restricted" in message.lower() and code in ("UNAVAILABLE", "PERMISSION_DENIED"):
        return RequestError(f"{url} does not allow this: {message}")
    if code == "UNAVAILABLE" and any(sign in message.lower() for sign in _BUSY):
        return OverloadedError(f"{url} has too many requests waiting; try again later")
    if code == "RESOURCE_EXHAUSTED":
        return OverloadedError(f"{url} has no room for this request ({message}); try again later")
    if code == "UNAVAILABLE" and _HTTP_INSTEAD.search(message):
        return http_instead(url)
    if code == "UNAVAILABLE" and _DROPPED.search(message):
        return DroppedError(f"{url} ends connections at once: {message}; see that the server runs and is ready")
    if code in ("UNAVAILABLE", "CANCELLED"):
        return UnavailableError(f"{url} cannot be reached: {message}; see that the server runs and is ready")
    if code == "DEADLINE_EXCEEDED":
        return DeadlineError(f"{url} gave no answer in time; give the call a longer timeout or lower the load")
    if code == "NOT_FOUND":
        return NotFoundError(message)
    if code == "PERMISSION_DENIED":
        return RequestError(f"{url} does not allow this ({message})")
    if code in _REFUSED:
        return RequestError(message)
    if _STUB.search(message):
        return UnavailableError(f"a model at {url} has died; try again once the server has restarted it")
    return ServingError(f"{url} failed inside a model; its log says more")


def http_instead(url: str) -> ServingError:
    """The error of a client for gRPC at a port for HTTP."""
    return ServingError(
        f"{url} speaks HTTP and not gRPC; give the server's port for gRPC (8001 unless it was told otherwise), or "
        "protocol='http'"
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


def _code(error: BaseException) -> str | None:
    """The status as gRPC names it: of tritonclient's exception, or of a bare RpcError."""
    if _is(error, "tritonclient.utils", "InferenceServerException"):
        status = str(error.status() or "")  # type: ignore[attr-defined]
        if not status:
            # Without a status it is the client library that refuses, such as for a response it cannot read.
            return "UNKNOWN"
        return _CODES.get(status, "UNKNOWN") if status.isdigit() else status.removeprefix("StatusCode.")
    if _is(error, "grpc", "RpcError") and callable(code := getattr(error, "code", None)):
        return str(getattr(code(), "name", "UNKNOWN"))
    return None


def _message(error: BaseException) -> str:
    details = getattr(error, "message", None) or getattr(error, "details", None)
    text = " ".join(str(details() if callable(details) else error).split())
    return _REQUEST_ID.sub("", text)[:_LONGEST] or type(error).__name__


def _without_code(error: BaseException, url: str) -> ServingError:
    """Exceptions of sockets and of the HTTP libraries."""
    if isinstance(error, TimeoutError):
        return DeadlineError(f"{url} gave no answer in time; give the call a longer timeout or lower the load")
    if _is(error, "aiohttp", "ClientResponseError") and _GRPC_INSTEAD.search(_message(error)):
        return ServingError(
            f"{url} does not speak HTTP, as a port for gRPC does not; give the server's port for HTTP (8000 unless it "
            "was told otherwise), or protocol='grpc'"
        )
    if isinstance(error, OSError | EOFError) or any(_is(error, *named) for named in _BROKEN):
        return UnavailableError(
            f"{url} cannot be reached: {_message(error)}; see that the server runs, and the protocol and port"
        )
    return ServingError(f"{url} gave an answer that is not understood ({type(error).__name__}: {_message(error)})")


_BROKEN = (
    ("aiohttp", "ClientConnectionError"),
    ("aiohttp", "ClientPayloadError"),
    ("grpc", "RpcError"),
    ("grpc.aio", "UsageError"),
)


def _is(error: BaseException, module: str, name: str) -> bool:
    """Whether it is of a class whose module somebody has imported: none is imported to look."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(error, kind)
