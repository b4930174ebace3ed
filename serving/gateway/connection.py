"""One connection: what uvicorn leaves open without bound has a bound here.

uvicorn waits for the head of a request for ever, reads on for ever after a refusal, and keeps an answer for ever that
its caller does not take; and it refuses in plain text.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from serving.gateway.problems import MEDIA_TYPE, Problem, busy
from serving.gateway.settings import GatewaySettings

LINGER = 2.0
"""Seconds in which what is still sent after a refusal is read and dropped, so that the refusal itself arrives."""


def connection_class(settings: GatewaySettings) -> type[H11Protocol]:
    """The protocol with the limits of these settings; uvicorn passes no arguments of ours to it."""

    class Connection(_Connection):
        limits = settings

    return Connection


class _Connection(H11Protocol):
    limits: GatewaySettings

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(busy(503, "connections", "too many connections; try again later", 1))
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._end):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem(400, "malformed-http", "this is not an HTTP/1.1 request, or its head is too long"))

    def _watch(self) -> None:
        """Has exactly those clocks run that this moment needs."""
        if self.transport.is_closing():
            # Closing waits until the caller has taken all of the last answer.
            self._finish_within(self.limits.max_timeout)
            return
        answered = self.cycle is None or self.cycle.response_complete
        idle = answered and self.conn.their_state is h11.IDLE
        # However many bytes of a head come, all of it must be there in time; between requests it is uvicorn's clock.
        begun = idle and (self.cycle is None or bool(self.conn.trailing_data[0]))
        if begun and self._head is None:
            self._head = self.loop.call_later(self.limits.head_timeout, self._late)
        elif not begun and self._head is not None:
            self._head.cancel()
            self._head = None
        if idle and not begun and self.timeout_keep_alive_task is None:
            # uvicorn stops it for every byte, of a body that was not wanted too.
            delay = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(delay, self.timeout_keep_alive_handler)
        if answered and self.conn.their_state is h11.SEND_BODY:
            self._finish_within(LINGER)
        elif self._end is not None:
            self._end.cancel()
            self._end = None

    def _late(self) -> None:
        self._refuse(Problem(408, "slow-head", f"no request within {self.limits.head_timeout:g} s"))

    def _refuse(self, problem: Problem) -> None:
        """Answers without h11, whose state may allow no answer, and closes."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            body = problem.body(secrets.token_hex(16))
            lines = [f"HTTP/1.1 {problem.status} {problem.title}", f"Content-Type: {MEDIA_TYPE}"]
            lines += [f"Content-Length: {len(body)}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in problem.headers.items()]
            self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()
        self._finish_within(LINGER)

    def _finish_within(self, seconds: float) -> None:
        """The end of the connection, whatever is still to be read or written; the first call counts."""
        if self._end is None:
            self._end = self.loop.call_later(seconds, self.transport.abort)
