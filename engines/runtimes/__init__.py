"""Runtimes: one small class per engine kind behind one protocol.

A runtime is imported only when it is asked for. One that is not installed is an error that names what is missing;
nothing falls back to another.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from engines.bundle import Bundle
from engines.contracts import TensorSpec
from engines.errors import RuntimeUnavailableError

__all__ = ["Runtime", "TensorSpec", "available", "create"]


class Runtime(Protocol):
    """One loaded graph."""

    graph: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    def load(cls, bundle: Bundle, graph: str, **options: Any) -> Self:
        """Loads a graph of a bundle from bytes whose digest was checked.

        Raises:
            BundleError: if the bundle lacks the graph or the runtime cannot load it.
            RuntimeUnavailableError: if an option asks for what is not installed here.
        """
        ...

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the graph on named inputs and gives named outputs.

        Raises:
            ValueError: for a wrong name, dtype or shape; one line that says what the graph takes.
        """
        ...

    def warm_up(self, batch: int = 1) -> None:
        """Runs once on zeros, with every dynamic dimension at `batch`."""
        ...


@dataclass(frozen=True)
class _Entry:
    package: str
    install: str
    importer: Callable[[], type[Runtime]]


def _onnxruntime() -> type[Runtime]:
    from engines.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime


_RUNTIMES = {"onnxruntime": _Entry("onnxruntime", "onnxruntime", _onnxruntime)}


def _installed(entry: _Entry) -> bool:
    return importlib.util.find_spec(entry.package) is not None


def available() -> list[str]:
    """Names of the runtimes whose packages are installed; imports none of them."""
    return [name for name, entry in _RUNTIMES.items() if _installed(entry)]


def create(name: str, bundle: Bundle, graph: str, **options: Any) -> Runtime:
    """Loads a graph of a bundle in the runtime of that name; `options` are those of its `load`.

    Raises:
        RuntimeUnavailableError: if there is no such runtime, or it is not installed here.
        BundleError: if the bundle lacks the graph or the runtime cannot load it.
    """
    here = ", ".join(available()) or "none"
    if name not in _RUNTIMES:
        raise RuntimeUnavailableError(
            f"unknown runtime {name!r}; there are {', '.join(_RUNTIMES)} (installed here: {here})"
        )
    entry = _RUNTIMES[name]
    if not _installed(entry):
        raise RuntimeUnavailableError(
            f"runtime {name} needs the package {entry.package}, which is not installed (installed here: {here}); "
            f"pip install {entry.install}"
        )
    try:
        runtime = entry.importer()
    except ImportError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RuntimeUnavailableError(f"runtime {name} is installed but cannot be imported: {reason}") from error
    return runtime.load(bundle, graph, **options)
