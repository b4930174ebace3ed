"""Every exception here is one that the libraries raise themselves, or is of their own class."""

from __future__ import annotations

import pytest

from serving.client.errors import (
    DeadlineError,
    NotFoundError,
    OverloadedError,
    RequestError,
    ServingError,
    StaleRegionError,
    UnavailableError,
)
from serving.client.translate import translate

URL = "127.0.0.1:8001"
utils = pytest.importorskip("tritonclient.utils", reason="tritonclient is not installed")


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("StatusCode.INVALID_ARGUMENT", "[request id: <id_unknown>] unexpected shape", RequestError),
        ("400", "unexpected shape", RequestError),
        ("StatusCode.UNIMPLEMENTED", "unary on decoupled", RequestError),
        ("501", "unary on decoupled", RequestError),
        ("StatusCode.NOT_FOUND", "resend image", NotFoundError),
        ("404", "resend image", NotFoundError),
        ("StatusCode.UNAVAILABLE", "Socket closed", UnavailableError),
        ("503", "Server is not ready", UnavailableError),
        ("StatusCode.CANCELLED", "CANCELLED", UnavailableError),
        ("StatusCode.UNAVAILABLE", "Exceeds maximum queue size", OverloadedError),
        ("503", "[request id: 1] Exceeds maximum queue size", OverloadedError),
        ("StatusCode.UNAVAILABLE", "Request timeout expired", OverloadedError),
        ("StatusCode.RESOURCE_EXHAUSTED", "no memory", OverloadedError),
        ("429", "slow down", OverloadedError),
        ("StatusCode.DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineError),
        ("504", "gateway timeout", DeadlineError),
        ("500", "Stub process 'edit_session_0_0' is not healthy.", UnavailableError),
        ("StatusCode.INTERNAL", "Failed: Stub process 'a' is not healthy.", UnavailableError),
        ("StatusCode.UNAVAILABLE", "This protocol is restricted, expecting header 'x'", RequestError),
        ("403", "This API is restricted, expecting header 'x'", RequestError),
        ("StatusCode.INVALID_ARGUMENT", "Unable to find shared memory region: 'edgedit_01'", StaleRegionError),
    ],
)
def test_statuses_of_both_protocols(status: str, message: str, kind: type[ServingError]) -> None:
    error = translate(utils.InferenceServerException(message, status=status), URL)
    assert type(error) is kind
    assert "\n" not in str(error) and "request id" not in str(error)


def test_what_a_model_raised_is_not_repeated() -> None:
    told = "Failed to process: ValueError: x\n\nAt:\n  /srv/models/edit_session/1/model.py(9): execute\n"
    for status in ("StatusCode.INTERNAL", "500", "StatusCode.UNKNOWN"):
        error = translate(utils.InferenceServerException(told, status=status), URL)
        assert type(error) is ServingError
        assert str(error) == f"{URL} failed inside a model; its log says more"


def test_what_the_server_refuses_is_said_in_its_own_words() -> None:
    told = utils.InferenceServerException("unknown direction 'simle';\n did you mean smile?", status="400")
    assert str(translate(told, URL)) == "unknown direction 'simle'; did you mean smile?"
    assert len(str(translate(utils.InferenceServerException("x" * 9999, status="400"), URL))) == 500


def test_connections_of_the_http_libraries() -> None:
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    gone = [
        ConnectionRefusedError(111, "Connection refused"),
        BrokenPipeError(32, "Broken pipe"),
        EOFError("the stream ended"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientOSError(104, "Connection reset by peer"),
        aiohttp.ClientPayloadError("Response payload is not completed"),
    ]
    for error in gone:
        assert type(translate(error, URL)) is UnavailableError, error
    late = [TimeoutError(), aiohttp.ServerTimeoutError(), aiohttp.ConnectionTimeoutError()]
    for error in late:
        assert type(translate(error, URL)) is DeadlineError, error


def test_an_error_of_the_clients_stays_and_any_other_is_named() -> None:
    error = NotFoundError("resend image")
    assert translate(error, URL) is error
    unknown = translate(KeyError("outputs"), URL)
    assert type(unknown) is ServingError and "not understood (KeyError" in str(unknown)
