"""The door: every request passes here before anything is read, decoded or asked of Triton.

In this order, cheapest first: host, deadline, key, rate, type and length, a place in the queue, the body. A refusal
comes before the body is read, so that a caller who waits for 100-continue never sends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gateway.keys import EDIT, METRICS
from serving.gateway.limits import RateLimiter
from serving.gateway.logs import log
from serving.gateway.problems import Problem, busy
from serving.gateway.settings import JSON_BYTES, is_loopback

if TYPE_CHECKING:
    from serving.gateway.app import Gateway

JSON, FORM = "application/json", "multipart/form-data"
IMAGES = ("image/jpeg", "image/png", "image/webp")
_ALIASES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
"""Names that are not registered, and that clients send all the same."""
BODIES = {"/v1/faces": (*IMAGES, FORM), "/v1/inversions": (*IMAGES, FORM), "/v1/edits": (JSON, FORM)}
"""The media types that may be posted, by path."""

OPEN = ("/healthz", "/readyz", "/openapi.json")
ROUTES = (*BODIES, "/v1/directions", "/v1/model", "/metrics", *OPEN)

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")
_NOBODY = "local"
_LEFT = 499


class _ClientLeft(Exception):
    pass


@dataclass
class Call:
    """One request, for the log and the metrics; routes find it in `request.state.call`."""

    id: str
    method: str
    route: str
    began: float
    key: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    status: int = 0
    problem: str | None = None
    started: bool = False
    complete: bool = False
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage of the work, as the answer's Server-Timing tells them."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Further members of the line in the log."""


class Guard:
    """ASGI middleware with the gateway's limits, queue and keys; without keys, only loopback names lead past it."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app, self._gateway, self._settings = app, gateway, gateway.settings
        self._rates = RateLimiter(gateway.settings.rate, gateway.settings.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        call = Call(
            id=offered if _REQUEST_ID.fullmatch(offered) else secrets.token_hex(16),
            method=scope["method"],
            route=scope["path"] if scope["path"] in ROUTES else "other",
            began=time.monotonic(),
        )
        scope.setdefault("state", {})["call"] = call
        reply = self._reply(send, call)
        try:
            await self._timed(scope, headers, receive, reply, call)
        except Problem as problem:
            await self._refuse(problem, call, scope, receive, reply)
        except _ClientLeft:
            call.status = _LEFT
        except asyncio.CancelledError:
            # The server stops and has waited long enough.
            with contextlib.suppress(Exception):
                stopping = busy(503, "stopping", "the gateway stops; send the request again", 1)
                await self._refuse(stopping, call, scope, receive, reply)
            raise
        except Exception as error:
            log.error("request failed", exc_info=error, extra={"fields": {"request_id": call.id}})
            if call.started:
                # An answer that was cut off must not look whole: the server closes the connection.
                raise
            failed = Problem(500, "internal", "the gateway failed; its log says more")
            await self._refuse(failed, call, scope, receive, reply)
        finally:
            self._account(call)

    async def _timed(self, scope: Scope, headers: Headers, receive: Receive, reply: Send, call: Call) -> None:
        seconds = self._timeout(headers)
        clock = asyncio.timeout(seconds)
        try:
            async with clock:
                await self._pass(scope, headers, receive, reply, call, seconds)
        except TimeoutError:
            if not clock.expired() or call.started:
                raise
            detail = f"no answer within {seconds:g} s; ask for more with X-Request-Timeout, or try again later"
            raise Problem(504, "deadline", detail) from None

    async def _pass(
        self, scope: Scope, headers: Headers, receive: Receive, reply: Send, call: Call, seconds: float
    ) -> None:
        if "transfer-encoding" in headers and "content-length" in headers:
            # A proxy that reads it the other way would let one caller put words in another's mouth.
            detail = "send Content-Length or Transfer-Encoding, not both"
            raise Problem(400, "ambiguous-length", detail, headers={"Connection": "close"})
        self._check_host(headers)
        needs = METRICS if call.route == "/metrics" else EDIT if scope["path"].startswith("/v1/") else None
        call.key = self._authenticate(headers, needs) if needs else _NOBODY
        if needs == EDIT and (wait := self._rates.take(call.key)):
            raise busy(429, "rate-limit", "too many requests with this key; slow down", wait)
        accepted = BODIES.get(scope["path"])
        if accepted is None or scope["method"] != "POST":
            return await self._app(scope, receive, reply)
        limit = self._body_limit(headers, accepted)
        with self._gateway.admission.admit(call.key):
            with self._gateway.metrics.stage("body"):
                body = await self._read(receive, limit, min(self._settings.body_timeout, seconds), call)
            await self._watched(scope, body, receive, reply, call)

    def _timeout(self, headers: Headers) -> float:
        text = headers.get("x-request-timeout")
        if text is None:
            return self._settings.timeout
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds > 0):
            raise Problem(400, "invalid-timeout", "X-Request-Timeout must be a number of seconds above 0")
        return min(seconds, self._settings.max_timeout)

    def _check_host(self, headers: Headers) -> None:
        """Refuses, where there are no keys, a page in the user's own browser that calls under a name that points here,
        or from another origin than our own page's."""
        if self._gateway.keys is not None:
            return
        host = headers.get("host", "")
        if not is_loopback(host if host.endswith("]") else re.sub(r":\d*$", "", host)):
            raise Problem(421, "misdirected", "without API keys this gateway answers to loopback names only")
        if (origin := headers.get("origin")) is not None and origin.partition("://")[2].lower() != host.lower():
            raise Problem(403, "foreign-origin", "without API keys this gateway answers to its own page only")

    def _authenticate(self, headers: Headers, scope: str) -> str:
        if self._gateway.keys is None:
            return _NOBODY
        kind, _, presented = headers.get("authorization", "").partition(" ")
        challenge = {"WWW-Authenticate": 'Bearer realm="edgedit"'}
        if kind.lower() != "bearer" or not presented.strip():
            detail = "send an API key, as Authorization: Bearer KEY"
            raise Problem(401, "no-key", detail, headers=challenge)
        key = self._gateway.keys.find(presented.strip())
        if key is None:
            raise Problem(401, "unknown-key", "this API key is not known", headers=challenge)
        if scope not in key.scopes:
            raise Problem(403, "key-scope", f"this API key is not for this; it lacks the scope {scope}")
        return key.name

    def _body_limit(self, headers: Headers, accepted: tuple[str, ...]) -> int:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if _ALIASES.get(kind, kind) not in accepted:
            detail = f"send one of {', '.join(accepted)}"
            raise Problem(415, "media-type", detail, headers={"Accept-Post": ", ".join(accepted)})
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem(415, "content-encoding", "send the body as it is, without Content-Encoding")
        limit = JSON_BYTES if kind == JSON else self._settings.body_bytes
        text = headers.get("content-length", "0")
        if not (text.isascii() and text.isdigit()):
            raise Problem(400, "content-length", "Content-Length is not a number of bytes")
        if int(text[:20]) > limit:
            raise _too_long(limit)
        return limit

    async def _read(self, receive: Receive, limit: int, seconds: float, call: Call) -> bytes:
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientLeft
                    chunks.append(message.get("body", b""))
                    call.bytes_in += len(chunks[-1])
                    if call.bytes_in > limit:
                        raise _too_long(limit)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            detail = f"the body did not arrive within {seconds:g} s"
            raise Problem(408, "slow-body", detail, headers={"Connection": "close"}) from None

    async def _watched(self, scope: Scope, body: bytes, receive: Receive, reply: Send, call: Call) -> None:
        """Runs the app, and cancels it when the caller leaves."""
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            if messages:
                return messages.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def leave() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        work = asyncio.ensure_future(self._app(scope, replay, reply))
        watch = asyncio.ensure_future(leave())
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            # Servers say "disconnect" after the whole answer too.
            if not work.done() and not call.complete:
                raise _ClientLeft
            await work
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)

    async def _refuse(self, problem: Problem, call: Call, scope: Scope, receive: Receive, reply: Send) -> None:
        """Sends a problem, unless an answer has begun."""
        call.problem = problem.kind or str(problem.status)
        if not call.started:
            await problem.answer(call.id)(scope, receive, reply)

    def _reply(self, send: Send, call: Call) -> Send:
        async def reply(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.started, call.status = True, message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = call.id
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
                if call.stages:
                    steps = (f"{name};dur={seconds * 1e3:.1f}" for name, seconds in call.stages.items())
                    headers["Server-Timing"] = ", ".join(steps)
                if self._gateway.draining:
                    headers["Connection"] = "close"
            elif message["type"] == "http.response.body":
                call.bytes_out += len(message.get("body", b""))
                call.complete = not message.get("more_body", False)
            await send(message)

        return reply

    def _account(self, call: Call) -> None:
        seconds = time.monotonic() - call.began
        status = call.status or _LEFT
        self._gateway.metrics.answered(call.route, call.method, status, seconds, call.bytes_in, call.bytes_out)
        if call.problem is not None:
            self._gateway.metrics.refused(call.problem)
        if call.route in (*OPEN, "/metrics") and status < 400:
            return
        fields = {
            "request_id": call.id,
            "key": call.key,
            "method": call.method if len(call.method) < 20 else "other",
            "route": call.route,
            "status": status,
            "ms": round(seconds * 1e3, 2),
            "bytes_in": call.bytes_in,
            "bytes_out": call.bytes_out,
            **({"problem": call.problem} if call.problem else {}),
            **call.fields,
        }
        log.log(30 if status >= 500 else 20, "request", extra={"fields": fields})


def _too_long(limit: int) -> Problem:
    return Problem(413, "body-too-large", f"the body is over {limit} bytes; scale the photo down first")
