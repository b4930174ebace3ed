"""The verbs of the development server: serve up, serve setup."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import tyro

from edgedit.commands.common import BundleOption, Reporting, check_output, opened, say
from edgedit.editor import PORTRAIT_BUNDLE
from engines.errors import OutputError
from serving.local import PRODUCTION, RELEASE


@dataclass(frozen=True, kw_only=True)
class ServeUp(Reporting):
    """Serve a bundle on this machine with a real Triton, for development; Ctrl-C stops it."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle to serve."""
    port: int = 8000
    """Port of HTTP; gRPC gets the next one and metrics the one after. 0 takes free ones. All on 127.0.0.1."""
    no_watchdog: bool = False
    """Do not ask every model for an inference every few seconds, nor restart the server when one has lost its process
    or the server itself has died."""
    shared_memory: bool = False
    """Let clients pass images in shared memory: faster, and any program on this machine may then do so."""
    log: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: it is not kept)")] = None
    """Append the server's log to this file."""
    no_setup: bool = False
    """Install nothing: fail if the server is not set up."""

    def run(self) -> dict[str, Any]:
        from serving.local import install

        if self.log is not None:
            check_output(self.log)
            if self.log == self.json:
                raise OutputError(f"--json and --log both name {self.log}; give each its own file")
        bundle = opened(self.bundle)
        installation = install.require() if self.no_setup else install.ensure(say)
        # Not at the top: they are for Linux alone, which the set-up has just made sure of.
        from serving.local.server import LocalServerError, LocalTriton
        from serving.local.watchdog import Watchdog

        named = [self.port + k for k in range(3)] if self.port else [0, 0, 0]
        server = LocalTriton(
            bundle,
            http_port=named[0],
            grpc_port=named[1],
            metrics_port=named[2],
            shared_memory=self.shared_memory,
            log=self.log,
            installation=installation,
        )
        with _interruptible(), server, contextlib.ExitStack() as stack:
            say(f"serving {bundle.name} on Triton {RELEASE}, a development server, for this machine alone:")
            say(f"  gRPC     {server.grpc}")
            say(f"  HTTP     http://{server.http}")
            say(f"  metrics  http://{server.metrics}/metrics")
            say(f"  models   {', '.join(server.models)}")
            say(f"it lacks later security fixes; in production serve the same models with {PRODUCTION}")
            count, memory = len(server.processes()), server.memory_bytes()
            say(f"ready after {server.ready_seconds:.1f} s: {count} processes, {memory / 1e6:.0f} MB; Ctrl-C stops it")
            summary = {
                "bundle": str(self.bundle),
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
            if not self.no_watchdog:
                watchdog = stack.enter_context(Watchdog(server, report=lambda event: say(event.line)))
            try:
                while watchdog is not None or server.alive:
                    threading.Event().wait(0.5)
                raise LocalServerError("the development server has died; without --no-watchdog it would be restarted")
            except KeyboardInterrupt:
                say("stopping")
        restarts = sum(event.healed for event in watchdog.events) if watchdog is not None else 0
        return summary | {"restarts": restarts}


@dataclass(frozen=True, kw_only=True)
class ServeSetup(Reporting):
    """Install the development server for `serve up` into the cache folder; once is enough."""

    def run(self) -> dict[str, Any]:
        from serving.local import install

        installed = install.ensure(say)
        installed.check()
        say(f"the development server, Triton {RELEASE}, is set up")
        return {"release": RELEASE, "server": str(installed.server), "stub": str(installed.stub)}


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
