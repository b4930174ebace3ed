"""The verbs `serve gateway` and `serve key`: HTTP for people and other languages, in front of Triton."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from edgedit.commands.common import OptionalFile, Reporting, console, say
from edgedit.demo import ASTRONAUT
from engines.errors import EdgeditError, RuntimeUnavailableError
from engines.packages import FACE_DETECTOR

if TYPE_CHECKING:
    from serving.gateway.settings import GatewaySettings as Settings


@dataclass(frozen=True, kw_only=True)
class ServeGateway(Reporting):
    """Run the HTTP gateway in front of a Triton that serves a bundle, until Ctrl-C or SIGTERM."""

    triton: str = "127.0.0.1:8001"
    """gRPC address of the Triton."""
    host: str = "127.0.0.1"
    """Address to listen on; one that other machines reach needs --api-keys."""
    port: int = 8080
    """Port to listen on; 0 for any that is free."""
    api_keys: OptionalFile = None
    """File of API keys, as `edgedit serve key` writes it; read again on SIGHUP."""
    private_key: OptionalFile = None
    """A key (PEM) that signs the pictures' Content Credentials, with --certificate; without it that is a key of this
    user's own, made once, which nobody vouches for."""
    certificate: OptionalFile = None
    """The certificate of --private-key (PEM), then those that vouch for it."""
    no_edit_list: bool = False
    """Let the credentials say that pictures were edited, but not how: no edits, no digest of the original."""
    no_credentials: bool = False
    """Write nothing of the edit into pictures; to say that they were edited is then up to you."""
    rate: float = 10.0
    """Requests a second that one key may make for long."""
    burst: int = 20
    """Requests that one key may make at once."""
    running: int = 8
    """Requests that are worked on at a time."""
    waiting: int = 32
    """Further requests that may wait; one more is answered 503."""
    per_key: int = 16
    """Requests of one key that may be worked on or wait."""
    megabytes: float = 20.0
    """Largest photo, as sent."""
    megapixels: float = 32.0
    """Largest photo, decoded."""
    timeout: float = 30.0
    """Seconds a request may take that names no deadline."""
    max_timeout: float = 60.0
    """Most seconds that a request may ask for."""
    drain_delay: float = 5.0
    """Seconds after SIGTERM in which /readyz answers 503 and all else is served as before."""
    drain_timeout: float = 30.0
    """Seconds that running requests have to finish then."""

    def settings(self) -> Settings:
        """The gateway's settings.

        Raises:
            GatewayError: if they allow nothing, or an address that needs keys has none.
        """
        from serving.gateway.settings import GatewaySettings as Settings

        return Settings(
            host=self.host,
            port=self.port,
            api_keys=self.api_keys,
            credentials=not self.no_credentials,
            private_key=self.private_key,
            certificate=self.certificate,
            edit_list=not self.no_edit_list,
            rate=self.rate,
            burst=self.burst,
            running=self.running,
            waiting=self.waiting,
            per_key=self.per_key,
            body_bytes=int(self.megabytes * 1e6),
            megapixels=self.megapixels,
            timeout=self.timeout,
            max_timeout=self.max_timeout,
            drain_delay=self.drain_delay,
            drain_timeout=self.drain_timeout,
        )

    def run(self) -> dict[str, Any]:
        settings = self.settings()
        try:
            from serving.client import AsyncClient
            from serving.gateway.server import serve
            from serving.studio.page import attach
        except ModuleNotFoundError as error:
            raise RuntimeUnavailableError(
                f"the gateway needs the package {error.name}: pip install 'edgedit[serve,gateway]'"
            ) from error

        # Now, and not while a caller waits; those that send aligned faces need no detector.
        try:
            FACE_DETECTOR.find(progress=say)
        except EdgeditError as error:
            say(f"whole photos will be refused: {error}")

        def listening(url: str) -> None:
            console.print(
                f"gateway on {url}, Triton at {self.triton}; {url}/docs tells what it does, {url} is the studio"
            )
            if settings.api_keys is None:
                console.print("no --api-keys: whoever can reach this address from this machine may use it")

        def connect() -> AsyncClient:
            # Two requests of the client at a time for each of the gateway's: the edit and what it is compared with.
            return AsyncClient(self.triton, timeout=settings.max_timeout, concurrency=2 * settings.running)

        serve(connect, settings, listening, attach(ASTRONAUT))
        console.print("stopped")
        return {"triton": self.triton, "host": self.host, "port": self.port}


@dataclass(frozen=True, kw_only=True)
class ServeKey(Reporting):
    """Make an API key for the gateway: its digest goes to the file, the key itself is shown once."""

    name: tyro.conf.Positional[str]
    """The key's name in logs."""
    api_keys: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """The file; made if it is not there."""
    scope: tuple[Literal["edit", "metrics"], ...] = ("edit",)
    """The rights of the key: call /v1, read /metrics."""

    def run(self) -> dict[str, Any]:
        from serving.gateway.keys import add_key

        key = add_key(self.api_keys, self.name, self.scope)
        say(key)
        say(f"{self.name} was added to {self.api_keys}; keep the key, it is shown only here")
        return {"name": self.name, "keys": str(self.api_keys), "scope": list(self.scope)}
