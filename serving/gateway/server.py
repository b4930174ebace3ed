"""Runs the gateway: uvicorn with bounds on connections, and a stop that lets requests finish."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from engines.errors import EdgeditError, StrengthWarning
from serving.gateway.app import Gateway, create_app
from serving.gateway.backend import Backend
from serving.gateway.connection import connection_class
from serving.gateway.logs import configure, log
from serving.gateway.settings import GatewayError, GatewaySettings

_BACKLOG = 512


class GatewayServer(uvicorn.Server):
    """uvicorn that drains at the first SIGTERM or SIGINT.

    While it drains, /readyz answers 503, all else is served and connections are not kept. After `drain_delay`, or at a
    second signal, the socket closes, and requests that run may finish for `drain_timeout`, or until a third signal.
    """

    def __init__(self, app: FastAPI, settings: GatewaySettings) -> None:
        self.gateway: Gateway = app.state.gateway
        self._settings = settings
        self._stop_at = math.inf
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=connection_class(settings),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=math.ceil(settings.drain_timeout),
            )
        )

    def drain(self) -> None:
        """Begins to stop."""
        if not self.gateway.draining:
            self.gateway.draining = True
            self._stop_at = time.monotonic() + self._settings.drain_delay
            log.info("draining")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not passed on once all is done, as uvicorn does: a drain that was asked for is no failure.
        if not self.gateway.draining:
            self.drain()
        elif not self.should_exit:
            self.should_exit = True
        else:
            self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or time.monotonic() >= self._stop_at

    def reload_keys(self, *_: object) -> None:
        """Reads the file of keys again, as at SIGHUP; if it will not do, the keys stay as they are."""
        if (keys := self.gateway.keys) is None:
            return
        try:
            keys.reload()
            log.info("keys read again", extra={"fields": {"keys": len(keys)}})
        except EdgeditError as error:
            log.error("keys stay as they were", extra={"fields": {"problem": str(error)}})


def bind(settings: GatewaySettings) -> socket.socket:
    """The listening socket, bound before anything is loaded; a GatewayError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host.strip("[]"), settings.port))
        # From here on callers wait instead of being refused.
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        detail = f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
        raise GatewayError(f"{detail}; choose another --host or --port") from error
    return listener


def serve(
    connect: Callable[[], AbstractAsyncContextManager[Backend]],
    settings: GatewaySettings,
    listening: Callable[[str], None] = lambda url: None,
    extend: Callable[[FastAPI], None] = lambda app: None,
) -> None:
    """Serves until it is told to stop by a signal; at SIGHUP it reads the file of keys again.

    `listening` is called with the URL once the address is bound; the other arguments are those of `create_app`.

    Raises:
        GatewayError: if the file of keys will not do or the address cannot be bound.
    """
    server = GatewayServer(create_app(connect, settings, extend), settings)
    with contextlib.closing(bind(settings)) as listener:
        configure()
        if server.gateway.keys is not None and hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, server.reload_keys)
        credentials = server.gateway.credentials
        words = credentials.words if credentials else "nothing that says so"
        log.info("edited pictures carry credentials", extra={"fields": {"credentials": words}})
        host = settings.host.strip("[]")
        host = f"[{host}]" if ":" in host else host
        listening(f"http://{host}:{listener.getsockname()[1]}")
        # Strengths are the callers' affair: /v1/directions tells them the ranges.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StrengthWarning)
            server.run([listener])
