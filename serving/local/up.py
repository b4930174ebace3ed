"""The development server until it is interrupted, its models watched: what `edgedit serve up` does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from engines.bundle import Bundle
from serving.local import PRODUCTION, RELEASE, install


def serve(
    bundle: Bundle,
    *,
    port: int = 8000,
    watched: bool = True,
    shared_memory: bool = False,
    log: Path | None = None,
    set_up: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Serves a bundle on this machine until SIGINT or SIGTERM.

    Args:
        port: the port of HTTP; gRPC gets the next one and metrics the one after. 0 takes free ones. All on 127.0.0.1.
        watched: ask every model for an inference every few seconds, and restart the server when one has lost its
            process or the server itself has died.
        shared_memory: let clients pass images in shared memory.
        log: a file that the server's log is appended to.
        set_up: install the server if it is not there.

    Returns:
        Addresses, models, seconds to be ready, processes, bytes of memory, and how often the server was restarted.

    Raises:
        LocalServerError: if it cannot be started, or dies unwatched.
        EdgeditError: if it is not, or cannot be, installed.
    """
    installation = install.ensure(progress) if set_up else install.require()
    # Not at the top: they are for Linux alone, which the set-up has just made sure of.
    from serving.local.server import LocalServerError, LocalTriton
    from serving.local.watchdog import Watchdog

    named = [port + k for k in range(3)] if port else [0, 0, 0]
    server = LocalTriton(
        bundle,
        http_port=named[0],
        grpc_port=named[1],
        metrics_port=named[2],
        shared_memory=shared_memory,
        log=log,
        installation=installation,
    )
    with _interruptible(), server, contextlib.ExitStack() as stack:
        progress(f"serving {bundle.name} on Triton {RELEASE}, a development server, for this machine alone:")
        progress(f"  gRPC     {server.grpc}")
        progress(f"  HTTP     http://{server.http}")
        progress(f"  metrics  http://{server.metrics}/metrics")
        progress(f"  models   {', '.join(server.models)}")
        progress(f"it lacks later security fixes; in production serve the same models with {PRODUCTION}")
        count, memory = len(server.processes()), server.memory_bytes()
        progress(f"ready after {server.ready_seconds:.1f} s: {count} processes, {memory / 1e6:.0f} MB; Ctrl-C stops it")
        summary = {
            "release": RELEASE,
            "http": server.http,
            "grpc": server.grpc,
            "metrics": server.metrics,
            "models": server.models,
            "ready_seconds": server.ready_seconds,
            "processes": count,
            "memory_bytes": memory,
        }
        watchdog = None
        if watched:
            watchdog = stack.enter_context(Watchdog(server, report=lambda event: progress(event.line)))
        try:
            while watchdog is not None or server.alive:
                threading.Event().wait(0.5)
            raise LocalServerError("the development server has died; without --no-watchdog it would be restarted")
        except KeyboardInterrupt:
            progress("stopping")
    return summary | {"restarts": sum(event.healed for event in watchdog.events) if watchdog is not None else 0}


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM, as service managers send it, does what Ctrl-C does; so does SIGINT to a command that a shell put into
    the background, where it is ignored otherwise."""

    def interrupt(*_: int | FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
