"""The verb `studio`: the page on which people edit a photo, with the model in this process or behind a Triton."""

from __future__ import annotations

import logging
import threading
import webbrowser
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedit.commands.common import OptionalText, Running, console, say
from edgedit.demo import ASTRONAUT
from engines.errors import EdgeditError, RuntimeUnavailableError
from engines.packages import FACE_DETECTOR

if TYPE_CHECKING:
    from serving.gateway.backend import Backend


@dataclass(frozen=True, kw_only=True)
class Studio(Running):
    """Open the studio in a browser: drop a photo, move the sliders, download the edit; Ctrl-C stops it."""

    port: int = 8090
    """Port of this machine alone to listen on; 0 for any that is free."""
    no_browser: bool = False
    """Only print the address."""
    triton: OptionalText = None
    """gRPC address of a Triton that serves a bundle, to run that one instead of --bundle in this process."""
    minutes: float = 30.0
    """The time that a photo and its inversion stay in memory after their last use."""
    no_credentials: bool = False
    """Write nothing of the edit into pictures; to say that they were edited is then up to you."""

    def run(self) -> dict[str, Any]:
        try:
            from serving.gateway.logs import LOGGER
            from serving.gateway.server import bind, serve
            from serving.gateway.settings import GatewaySettings
            from serving.studio.page import attach
        except ModuleNotFoundError as error:
            raise RuntimeUnavailableError(
                f"the studio needs the package {error.name}: pip install 'edgedit[gateway]'"
            ) from error

        seconds = 60 * self.minutes
        settings = GatewaySettings(
            port=self.port,
            photo_seconds=seconds,
            credentials=not self.no_credentials,
            # The page asks for one picture after another, as fast as they come.
            rate=100.0,
            burst=1000,
            timeout=120.0,
            max_timeout=120.0,
            drain_delay=0.0,
            drain_timeout=2.0,
        )
        # A port that is taken is found out before the bundle is read.
        with closing(bind(settings)):
            pass
        connect = self._connection(seconds, settings.max_timeout)
        try:
            FACE_DETECTOR.find(progress=say)
        except EdgeditError as error:
            say(f"whole photos will be refused: {error}")

        def listening(url: str) -> None:
            for name in (LOGGER, "uvicorn", "uvicorn.error"):
                # A person reads this terminal: no line for each picture.
                logging.getLogger(name).setLevel(logging.WARNING)
            console.print(f"studio on {url}, its HTTP interface on {url}/docs; Ctrl-C stops it")
            if not self.no_browser:
                # A console browser would hold up what it is to show.
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        serve(connect, settings, listening, attach(ASTRONAUT))
        console.print("stopped")
        return {"bundle": None if self.triton else str(self.bundle), "triton": self.triton, "port": self.port}

    def _connection(self, seconds: float, timeout: float) -> Callable[[], AbstractAsyncContextManager[Backend]]:
        """A function that opens the model, here or behind a Triton."""
        if self.triton is not None:
            from serving.client import AsyncClient

            address = self.triton if ":" in self.triton else f"{self.triton}:8001"
            return lambda: AsyncClient(address, timeout=timeout)
        from serving.studio.local import LocalBackend

        editor = self.load()
        editor.session.prepare("invert", "edit", "reconstruct")
        return lambda: LocalBackend(editor.session, editor.directions, seconds=seconds)
