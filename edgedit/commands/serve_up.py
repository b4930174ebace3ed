"""The verbs of the development server: serve up, serve setup."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit.commands.common import BundleOption, Reporting, opened, say
from edgedit.editor import PORTRAIT_BUNDLE
from engines.errors import OutputError
from engines.store import check_output
from serving.local import RELEASE


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
        from serving.local.up import serve

        if self.log is not None:
            check_output(self.log)
            if self.log == self.json:
                raise OutputError(f"--json and --log both name {self.log}; give each its own file")
        summary = serve(
            opened(self.bundle),
            port=self.port,
            watched=not self.no_watchdog,
            shared_memory=self.shared_memory,
            log=self.log,
            set_up=not self.no_setup,
            progress=say,
        )
        return {"bundle": str(self.bundle)} | summary


@dataclass(frozen=True, kw_only=True)
class ServeSetup(Reporting):
    """Install the development server for `serve up` into the cache folder; once is enough."""

    def run(self) -> dict[str, Any]:
        from serving.local import install

        installed = install.ensure(say)
        installed.check()
        say(f"the development server, Triton {RELEASE}, is set up")
        return {"release": RELEASE, "server": str(installed.server), "stub": str(installed.stub)}
