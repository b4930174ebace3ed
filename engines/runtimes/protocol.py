"""The interface of runtimes: a loaded graph that takes and gives named tensors, on the host or where it computes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol, Self

import numpy as np

from engines.bundle import Bundle
from engines.contracts import TensorSpec, check_feeds
from engines.errors import EdgeditError


class DeviceTensor(Protocol):
    """A tensor that lies where a runtime computes. Nothing writes to it; its memory goes with the last reference."""

    @property
    def dtype(self) -> np.dtype:
        """The type of its elements."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's extents."""
        ...

    def numpy(self) -> np.ndarray:
        """A copy on the host."""
        ...


Feed = np.ndarray | DeviceTensor


class Runtime(Protocol):
    """One loaded graph."""

    graph: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @classmethod
    def load(cls, bundle: Bundle, graph: str, *_: Any, **options: Any) -> Self:
        """Loads a graph of a bundle from bytes whose digest was checked. Each runtime has options of its own.

        Raises:
            BundleError: if the bundle lacks the graph or the runtime cannot load it.
            EngineError: if the runtime needs an engine and there is none, or it was not built for this machine.
            RuntimeUnavailableError: if an option asks for what is not installed here.
        """
        ...

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str] = ()) -> dict[str, Any]:
        """Runs the graph on named inputs and gives named outputs.

        Args:
            feeds: NumPy arrays, or tensors that a runtime of the same kind and device gave.
            keep: outputs to leave where they are: they come as `DeviceTensor`, the others as NumPy arrays.

        Raises:
            ValueError: for a wrong name, dtype or shape; one line that says what the graph takes.
            EngineError: if the runtime fails.
        """
        ...

    def put(self, array: np.ndarray) -> DeviceTensor:
        """A copy of an array where this runtime computes, to be fed any number of times."""
        ...

    def warm_up(self, batch: int = 1) -> None:
        """Runs once on zeros, with every dynamic dimension at `batch`."""
        ...


def known_options(load: Callable[..., Any]) -> list[str]:
    """The options of a runtime's `load` that have a name."""
    takes = inspect.signature(load).parameters.values()
    return [parameter.name for parameter in takes if parameter.kind is parameter.KEYWORD_ONLY]


def refuse_unknown(runtime: str, options: Iterable[str], known: Collection[str]) -> None:
    """Refuses options that a runtime does not have.

    Raises:
        EdgeditError: with the first of them, and those that it has.
    """
    for option in options:
        if option not in known:
            there = ", ".join(known) or "none"
            raise EdgeditError(f"runtime {runtime} has no option {option}; it has {there}")


def check_run(
    graph: str,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    feeds: Mapping[str, Feed],
    keep: Collection[str],
    own: type,
) -> dict[str, int]:
    """Checks what `Runtime.run` is given.

    Args:
        feeds: as `Runtime.run`.
        keep: as `Runtime.run`.
        own: the class of the runtime's own device tensors.

    Returns:
        The extent of each dynamic dimension, by its name.

    Raises:
        ValueError: as `Runtime.run`.
    """
    if unknown := sorted(set(keep) - {spec.name for spec in outputs}):
        names = ", ".join(spec.name for spec in outputs)
        raise ValueError(f"graph {graph} has no output {unknown[0]}; it gives {names}")
    # A tensor elsewhere has a dtype and a shape, which is all that is compared: a stand-in of no size has them too.
    on_host = {
        name: np.broadcast_to(np.empty((), feed.dtype), feed.shape) if isinstance(feed, own) else feed
        for name, feed in feeds.items()
    }
    check_feeds(graph, inputs, on_host)  # type: ignore[arg-type]  (it refuses what is no array)
    return {
        dimension: extent
        for spec in inputs
        for dimension, extent in zip(spec.shape, feeds[spec.name].shape, strict=True)
        if isinstance(dimension, str)
    }


def extents(spec: TensorSpec, dynamic: Mapping[str, int]) -> tuple[int, ...] | None:
    """The shape of a tensor when its dynamic dimensions have those extents; None if one of them is not known."""
    shape = [dimension if isinstance(dimension, int) else dynamic.get(dimension) for dimension in spec.shape]
    return None if None in shape else tuple(shape)  # type: ignore[arg-type]


def zeros(inputs: Iterable[TensorSpec], batch: int) -> dict[str, np.ndarray]:
    """Feeds of zeros, with every dynamic dimension at `batch`."""
    return {
        spec.name: np.zeros([batch if isinstance(d, str) else d for d in spec.shape], spec.dtype) for spec in inputs
    }
