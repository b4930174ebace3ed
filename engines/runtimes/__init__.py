"""Runtimes: one small class per engine kind behind one protocol.

A runtime is imported only when it is asked for. One that is not installed is an error that names what is missing;
nothing falls back to another.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from engines.bundle import Bundle
from engines.contracts import TensorSpec
from engines.errors import RuntimeUnavailableError, first_line
from engines.libraries import LIBRARIES
from engines.runtimes.protocol import DeviceTensor, Feed, Runtime, known_options, refuse_unknown

__all__ = ["DeviceTensor", "Feed", "Runtime", "TensorSpec", "available", "create", "register", "runtime_class"]


@dataclass(frozen=True)
class _Entry:
    packages: tuple[str, ...]
    """The packages that it imports."""
    install: str
    importer: Callable[[], type[Runtime]]

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [package for package in self.packages if importlib.util.find_spec(package) is None]


def _here(module: str, name: str) -> type[Runtime]:
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


_RUNTIMES = {
    "onnxruntime": _Entry(("onnxruntime",), "onnxruntime", partial(_here, "onnxruntime", "OnnxRuntime")),
    "openvino": _Entry(("openvino", "onnx"), "'edgedit[openvino]'", partial(_here, "openvino", "OpenVINO")),
    "tensorrt": _Entry(
        (LIBRARIES["tensorrt"].module, "pycuda"), "'edgedit[tensorrt]'", partial(_here, "tensorrt", "TensorRT")
    ),
    "tensorrt-rtx": _Entry(
        (LIBRARIES["tensorrt-rtx"].module, "pycuda"),
        "'edgedit[rtx]' pycuda",
        partial(_here, "tensorrt", "TensorRTRTX"),
    ),
}

_ELSEWHERE = {"torch": ("bench.runtimes", "'edgedit[train]'")}
"""Runtimes that packages above this one register: the module that does so, and what to install for them."""


def register(name: str, packages: tuple[str, ...], install: str, importer: Callable[[], type[Runtime]]) -> None:
    """Adds a runtime that lives in another package; one of the same name is replaced.

    Args:
        name: what `create` calls it.
        packages: import names of what it needs.
        install: what a user gives to `pip install` if one of them is missing.
    """
    _RUNTIMES[name] = _Entry(packages, install, importer)


def available() -> list[str]:
    """Names of the runtimes whose packages are installed; imports none of them."""
    return [name for name, entry in _RUNTIMES.items() if not entry.missing()]


def runtime_class(name: str) -> type[Runtime]:
    """The class of a runtime, imported.

    Raises:
        RuntimeUnavailableError: if there is no such runtime, or it is not installed here.

    Example:
        >>> known_options(runtime_class("onnxruntime").load)
        ['provider', 'threads', 'precision', 'target', 'public_key']
    """
    here = ", ".join(available()) or "none"
    if name not in _RUNTIMES and name in _ELSEWHERE:
        module, install = _ELSEWHERE[name]
        raise RuntimeUnavailableError(
            f"runtime {name} is a baseline of the benchmarks: import {module} first (it needs pip install {install})"
        )
    if name not in _RUNTIMES:
        raise RuntimeUnavailableError(
            f"unknown runtime {name!r}; there are {', '.join(_RUNTIMES)} (installed here: {here})"
        )
    entry = _RUNTIMES[name]
    if missing := entry.missing():
        packages = f"the package{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
        raise RuntimeUnavailableError(
            f"runtime {name} needs {packages}, which {'are' if len(missing) > 1 else 'is'} not installed "
            f"(installed here: {here}); pip install {entry.install}"
        )
    try:
        return entry.importer()
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"runtime {name} is installed but cannot be imported: {first_line(error)}"
        ) from error


def create(name: str, bundle: Bundle, graph: str, **options: Any) -> Runtime:
    """Loads a graph of a bundle in the runtime of that name; `options` are those of its `load`.

    Raises:
        RuntimeUnavailableError: if there is no such runtime, or it is not installed here.
        EdgeditError: if it has no such option.
        BundleError: if the bundle lacks the graph or the runtime cannot load it.
        EngineError: if the runtime needs an engine and there is none, or it was not built for this machine.
    """
    runtime = runtime_class(name)
    takes = inspect.signature(runtime.load).parameters.values()
    # One that passes options on refuses those that nobody knows itself.
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes):
        refuse_unknown(name, options, known_options(runtime.load))
    return runtime.load(bundle, graph, **options)
