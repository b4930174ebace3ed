"""Starts the serving image: engines first, then this process becomes tritonserver.

    EDGEDIT_DEVICE            gpu, or cpu for ONNX Runtime without engines         gpu
    EDGEDIT_LISTEN            address of gRPC                                      127.0.0.1
    EDGEDIT_METRICS_LISTEN    address of the metrics                               127.0.0.1
    EDGEDIT_HTTP_LISTEN       address of HTTP, which the probes use                127.0.0.1
    EDGEDIT_EXIT_SECONDS      how long requests in flight may take at the end      30
    EDGEDIT_MAX_REQUEST_BYTES largest HTTP body                                    33554432
    EDGEDIT_TUNE_FOR_BATCH    the batch size that engines are tuned for            1
    EDGEDIT_MEMORY_BUDGET     scratch memory while building, and size of an engine, at most, such as 2G
    EDGEDIT_KEEP_PLANS_DAYS   engines that no start has taken for so long go       60
    EDGEDIT_MODELS            the image's model repository                         /models
    EDGEDIT_PLANS             where engines are kept                               /var/cache/edgedit
    EDGEDIT_RUN               where the served repository is put together          /run/edgedit
    EDGEDIT_TRITONSERVER      the server                                           tritonserver

Arguments are passed on to tritonserver.
"""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Self

from serving.deploy import builders
from serving.deploy.builders import Builder, find_builder
from serving.deploy.engine_cache import EngineCache, Say
from serving.deploy.errors import StartError
from serving.deploy.repository import assemble

RESTRICTED = ("shared-memory", "model-repository", "trace", "logging", "statistics")
"""Protocols of Triton that no client of ours uses; each has been a way in, or shows what others do."""

SHM = Path("/dev/shm")

_OPTIONAL = ("--http-max-input-size", "--allow-client-shm")
"""Flags that older servers do not know, and end on."""


@dataclass(frozen=True)
class StartSettings:
    """The settings of the environment, see the module. Read by hand, since the image has no pydantic-settings."""

    device: str
    listen: str
    metrics_listen: str
    http_listen: str
    exit_seconds: int
    max_request_bytes: int
    tune_for_batch: int
    memory_budget: int | None
    """Bytes, see `Builder.memory_budget`."""
    keep_engines_days: int
    models: Path
    engines: Path
    run: Path
    server: str

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Reads the settings; a StartError names the variable that is wrong."""

        def text(name: str, default: str) -> str:
            return environment.get(f"EDGEDIT_{name}", "").strip() or default

        def number(name: str, default: int, least: int) -> int:
            value = text(name, str(default))
            if not value.isascii() or not value.isdigit() or int(value) < least:
                raise StartError(f"EDGEDIT_{name} must be a whole number of at least {least}, got {value!r}")
            return int(value)

        def size(name: str) -> int | None:
            value = text(name, "")
            if not value:
                return None
            match = re.fullmatch(r"([1-9]\d{0,11})([KMG]?)", value.upper())
            if match is None:
                raise StartError(f"EDGEDIT_{name} must be a size such as 512M or 2G, got {value!r}")
            return int(match[1]) * {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}[match[2]]

        def address(name: str) -> str:
            value = text(name, "127.0.0.1")
            try:
                return str(ipaddress.ip_address(value))
            except ValueError:
                raise StartError(f"EDGEDIT_{name} must be an IP address, got {value!r}") from None

        device = text("DEVICE", "gpu")
        if device not in ("gpu", "cpu"):
            raise StartError(f"EDGEDIT_DEVICE must be gpu or cpu, got {device!r}")
        return cls(
            device=device,
            listen=address("LISTEN"),
            metrics_listen=address("METRICS_LISTEN"),
            http_listen=address("HTTP_LISTEN"),
            exit_seconds=number("EXIT_SECONDS", 30, 1),
            max_request_bytes=number("MAX_REQUEST_BYTES", 32 * 2**20, 1),
            tune_for_batch=number("TUNE_FOR_BATCH", 1, 1),
            memory_budget=size("MEMORY_BUDGET"),
            keep_engines_days=number("KEEP_PLANS_DAYS", 60, 1),
            models=Path(text("MODELS", "/models")),
            engines=Path(text("PLANS", "/var/cache/edgedit")),
            run=Path(text("RUN", "/run/edgedit")),
            server=text("TRITONSERVER", "tritonserver"),
        )


def known_flags(server: str) -> frozenset[str]:
    """The flags that a tritonserver lists in its help; a StartError if it cannot be run."""
    _, said = builders.run([server, "--help"], dict(os.environ))
    flags = frozenset(re.findall(r"^\s+(--[a-z0-9][a-z0-9-]*)", said, re.MULTILINE))
    if "--model-repository" not in flags:
        line = (said.splitlines() or ["it says nothing"])[0]
        raise StartError(f"{server} --help does not list the flags of a tritonserver: {line}")
    return flags


def server_command(settings: StartSettings, repository: Path, known: frozenset[str]) -> list[str]:
    """The command line of tritonserver; a StartError if it lacks a flag that closes it."""
    # Nobody is told the value, so that nobody passes the restriction; each start has another.
    key = f"edgedit-admin={secrets.token_hex(32)}"
    restricted = ",".join(RESTRICTED)
    flags = {
        "--model-repository": str(repository),
        "--model-control-mode": "none",
        "--disable-auto-complete-config": None,
        "--strict-readiness": "true",
        "--exit-timeout-secs": str(settings.exit_seconds),
        "--grpc-address": settings.listen,
        "--http-address": settings.http_listen,
        "--metrics-address": settings.metrics_listen,
        "--http-restricted-api": f"{restricted}:{key}",
        "--grpc-restricted-protocol": f"{restricted}:{key}",
        "--backend-config": f"python,shm-region-prefix-name={shm_prefix()}",
        "--log-format": "ISO8601",
        "--http-max-input-size": str(settings.max_request_bytes),
        "--allow-client-shm": "false",
    }
    if settings.device == "cpu":
        flags |= {"--model-config-name": "cpu", "--allow-gpu-metrics": "false"}
    if missing := sorted(flag for flag in flags if flag not in known and flag not in _OPTIONAL):
        raise StartError(f"{settings.server} does not know {missing[0]}: take a newer tritonserver image")
    arguments = [flag if value is None else f"{flag}={value}" for flag, value in flags.items() if flag in known]
    return [settings.server, *arguments]


def shm_prefix() -> str:
    """The start of its regions' names in /dev/shm; a pod keeps its own name, and /dev/shm, when it restarts."""
    return "edgedit_" + re.sub(r"\W", "_", socket.gethostname())[:64] + "_"


def sweep_shm(folder: Path = SHM) -> int:
    """Removes the regions that a killed server of this container left: they count against its memory.

    Returns:
        How many there were.
    """
    swept = 0
    with suppress(OSError):
        for region in folder.glob(f"{shm_prefix()}*"):
            region.unlink(missing_ok=True)
            swept += 1
    return swept


def prepare(settings: StartSettings, builder: Builder | None, say: Say = print) -> Path:
    """Puts the served repository together, with the errors of `assemble`; without a builder, on a CPU, the image's own
    is served as it is."""
    if builder is None:
        if not settings.models.is_dir():
            raise StartError(f"there is no {settings.models}: build the image with what `edgedit serve repo` wrote")
        return settings.models
    say(f"plans: {builder.title} on {', '.join(builder.gpus)}, kept in {settings.engines}")
    cache = EngineCache(settings.engines, say)
    place = settings.run / "models"
    built = assemble(settings.models, place, builder, cache, tune_for=settings.tune_for_batch, say=say)
    cache.prune(settings.keep_engines_days)
    say(f"plans: {len(built)} built" if built else "plans: all were in the cache")
    return place


def main(arguments: list[str] | None = None) -> int:
    """Replaces this process by tritonserver; returns 1 with one line on the standard error if it cannot."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    # As the first process of a container, it would ignore the signal without a handler.
    signal.signal(signal.SIGTERM, _stop)
    try:
        settings = StartSettings.read(os.environ)
        server = shutil.which(settings.server)
        if server is None:
            raise StartError(f"there is no {settings.server}: build the image FROM a tritonserver image")
        known = known_flags(server)
        builder = None
        if settings.device == "gpu":
            builder = replace(find_builder(), memory_budget=settings.memory_budget)
        repository = prepare(settings, builder, _say)
        if swept := sweep_shm():
            _say(f"removed {swept} shared-memory regions of a killed server")
        command = [*server_command(settings, repository, known), *arguments]
        sys.stdout.flush()
        os.execv(server, command)
    except StartError as error:
        print(f"edgedit: {error}", file=sys.stderr)
    except OSError as error:
        print(f"edgedit: the server cannot be started: {error.strerror or error}", file=sys.stderr)
    return 1


def _stop(number: int, frame: FrameType | None) -> None:
    for child in list(builders.running):
        child.terminate()
    sys.exit(128 + number)


def _say(line: str) -> None:
    print(f"edgedit: {line}", flush=True)
