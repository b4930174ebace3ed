"""TensorRT and TensorRT-RTX by name: the one place that knows how they are imported and installed."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class Library:
    """One library."""

    module: str
    """The module that is imported."""
    title: str
    """The library's name in messages and manifests."""
    extra: str
    """The extra of edgedit that installs it."""
    distributions: tuple[str, ...]
    """Names that the module is installed under; a machine has at most one of them."""

    @property
    def installed(self) -> bool:
        """True if it can be looked for; importing it may still fail."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def distribution(self) -> str | None:
        """The one of `distributions` that is installed; None for a system's own packages, and for none."""
        for name in self.distributions:
            try:
                metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue
            return name
        return None


LIBRARIES = {
    "tensorrt": Library(
        "tensorrt",
        "TensorRT",
        "tensorrt",
        ("tensorrt-cu13-bindings", "tensorrt-cu12-bindings", "tensorrt-bindings", "tensorrt"),
    ),
    "tensorrt-rtx": Library(
        "tensorrt_rtx_bindings",
        "TensorRT-RTX",
        "rtx",
        ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx"),
    ),
}
"""The libraries by the name of the runtime."""
