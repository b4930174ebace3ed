"""The one place that imports TensorRT or TensorRT-RTX: the same API under two names.

The API is that of strongly typed networks, which TensorRT has since 10.12 and which is the only one since 11.0.
"""

from __future__ import annotations

import ctypes
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from engines.errors import EngineError, RuntimeUnavailableError, first_line
from engines.libraries import LIBRARIES

OLDEST = (10, 12)
"""The first TensorRT whose strongly typed networks this code path builds."""

_DRIVER_FLOORS = {"cu12": "525.60", "cu13": "580.65"}
"""NVIDIA's CUDA Toolkit release notes, "CUDA minor version compatibility": the oldest Linux driver of a CUDA major."""

_ELSEWHERE = {
    "sm87": "Jetson Orin",
    "sm90": "H100 and H200",
    "sm100": "B200",
    "sm103": "B300",
    "sm110": "Jetson Thor",
}
"""Architectures that TensorRT builds for and TensorRT-RTX does not."""

_NOISE = re.compile(r"catchCudaError|cudaError 35|^(While parsing|--- )|ModelImporter\.cpp:14[0-9]:")
_PLACE = re.compile(r"\s*\.?\s*In \w+ at \S+?:\d+(?=[\s);]|$)")


@dataclass(frozen=True)
class Backend:
    """TensorRT or TensorRT-RTX, imported."""

    runtime: str
    """"tensorrt" or "tensorrt-rtx"."""
    title: str
    """The library's name in messages and manifests."""
    api: Any
    """The module."""
    logger: Any
    """The one logger of this process: TensorRT keeps the first it is given and uses it from every thread."""

    @property
    def version(self) -> str:
        return self.api.__version__

    @property
    def rtx(self) -> bool:
        return self.runtime == "tensorrt-rtx"

    @property
    def distribution(self) -> str | None:
        """Name of the installed package, such as "tensorrt-rtx-cu13-bindings"; None for a system's own packages."""
        return LIBRARIES[self.runtime].distribution

    @property
    def driver_floor(self) -> str | None:
        """The oldest driver for the CUDA major that the package was made for; None where that is not known."""
        match = re.search(r"cu1\d", self.distribution or "")
        return _DRIVER_FLOORS.get(match[0]) if match else None

    @property
    def architectures(self) -> tuple[str, ...]:
        """The architectures it builds for by name ("sm86", ...); empty where it builds for the GPU at hand only."""
        if not hasattr(self.api.IBuilderConfig, "set_compute_capability"):
            return ()
        names = [name.lower() for name in self.api.ComputeCapability.__members__ if name.startswith("SM")]
        return tuple(sorted(names, key=lambda name: int(name[2:])))

    @contextmanager
    def messages(self) -> Iterator[list[tuple[str, str]]]:
        """The library's messages inside the block, as (severity, text); severities below INFO are dropped."""
        before, self.logger.heard = self.logger.heard, []
        try:
            yield self.logger.heard
        finally:
            self.logger.heard = before


def load(runtime: str) -> Backend:
    """Imports a backend.

    Args:
        runtime: "tensorrt" or "tensorrt-rtx".

    Raises:
        RuntimeUnavailableError: if it is not installed, too old, or cannot be imported here.
    """
    library = LIBRARIES[runtime]
    try:
        backend = _load(runtime)
    except ModuleNotFoundError:
        raise RuntimeUnavailableError(
            f"{library.title} is not installed here: pip install 'edgedit[{library.extra}]'"
        ) from None
    except (ImportError, OSError, RuntimeError) as error:
        raise RuntimeUnavailableError(
            f"{library.title} is installed but cannot be imported: {first_line(error)}"
        ) from error
    if not backend.rtx and _numbers(backend.version) < OLDEST:
        raise RuntimeUnavailableError(
            f"{library.title} {backend.version} is too old: engines need {'.'.join(map(str, OLDEST))} or newer, "
            f"pip install 'edgedit[{library.extra}]'"
        )
    return backend


@cache
def _load(runtime: str) -> Backend:
    library = LIBRARIES[runtime]
    api = importlib.import_module(library.module)

    class Listener(api.ILogger):
        """Keeps messages while someone listens."""

        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.heard: list[tuple[str, str]] | None = None

        def log(self, severity: Any, msg: str) -> None:
            # An exception must not pass through the library's own threads.
            if self.heard is not None and severity.name != "VERBOSE":
                self.heard.append((severity.name, msg))

    return Backend(runtime, library.title, api, Listener())


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def error_summary(messages: Sequence[tuple[str, str]]) -> str:
    """The first error among messages on one line, without source places and what follows from having no driver."""
    errors = [text for severity, text in messages if severity.endswith("ERROR")]
    telling = [text for text in errors if not _NOISE.search(text)] or errors
    text = " ".join(telling[0].split()) if telling else "it does not say why"
    return _PLACE.sub("", text).strip()


def current_capability() -> tuple[int, int] | None:
    """Compute capability of the first GPU, such as (8, 6); None if there is no driver or no GPU."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR is 75, _MINOR 76.
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    )
    return None if failed else (major.value, minor.value)


def architecture(capability: tuple[int, int]) -> str:
    """ "sm86" for (8, 6)."""
    return f"sm{capability[0]}{capability[1]}"


def capability(name: str) -> str:
    """ "8.6" for "sm86"."""
    return f"{name[2:-1]}.{name[-1]}"


def targets(
    requested: str, runtime: str, title: str, known: Sequence[str], here: tuple[int, int] | None
) -> tuple[str, ...]:
    """The architectures that a target stands for, in rising order; "current" becomes that of the GPU at hand.

    Args:
        requested: names separated by commas.
        known: what it builds for by name; empty if it builds for the GPU at hand only.
        here: compute capability of the GPU at hand.

    Raises:
        EngineError: for an unknown target, one that this runtime does not build for, or no GPU where one is needed.
    """
    names = sorted({part.strip().lower() for part in requested.split(",")}, key=lambda n: (len(n), n))
    offered = ", ".join((*known, "current"))
    present = architecture(here) if here else None
    if "current" in names:
        if len(names) > 1:
            raise EngineError(f"--target {requested}: current stands alone; or name the architectures ({offered})")
        if present is None:
            hint = f"name a target ({', '.join(known)})" if known else "build on the machine that will run it"
            raise EngineError(f"target current needs an NVIDIA GPU with its driver, and none is here; {hint}")
        names = [present]
    for name in names:
        if name in known or (not known and name == present):
            continue
        if runtime == "tensorrt-rtx" and name in _ELSEWHERE:
            raise EngineError(
                f"{title} does not build for {name} ({_ELSEWHERE[name]}); TensorRT does, on that machine: "
                "edgedit build --runtime tensorrt --target current"
            )
        if known or not re.fullmatch(r"sm\d{2,3}", name):
            raise EngineError(f"unknown target {name!r}; {title} builds for {offered}")
        raise EngineError(
            f"{title} builds for the GPU it runs on, which is {present or 'not there'}: build for {name} on a machine "
            "that has one, or use --runtime tensorrt-rtx"
        )
    return tuple(names)
