"""The runtimes that can be measured: the registry says which are installed, and each runtime in which precisions.

A runtime that is registered appears by itself: in the bundle's own graphs; in every precision that its `load` names in
the type of an option `precision`; in those of its engines in the bundle.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

import bench.runtimes  # noqa: F401  (registers the baseline)
from engines.bundle import Bundle
from engines.bundle.folders import EngineFolder, list_engines
from engines.cpus import threads as allowed
from engines.errors import EdgeditError, RuntimeUnavailableError, first_line, suggestion
from engines.libraries import LIBRARIES
from engines.runtimes import available, runtime_class

BASE = "torch:fp32"
"""PyTorch, operator by operator, in FP32: what every ratio is given to."""

_ON_GPU: dict[str, dict[str, Any]] = {
    "torch": {"device": "cuda"},
    "onnxruntime": {"provider": "cuda"},
    **{name: {} for name in LIBRARIES},
}
"""The options by which runtimes run on the first GPU."""

_EMULATED = "PyTorch emulates it on a processor, many times slower; --runtime torch:fp16 measures it all the same"


@dataclass(frozen=True)
class Candidate:
    """A runtime in one precision."""

    runtime: str
    precision: str
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the runtime's `load`."""
    engine: str | None = None
    """The engine folder it runs; None for the bundle's own graph."""
    graphs: frozenset[str] | None = None
    """The graphs that it has; None for all of the bundle."""

    @property
    def name(self) -> str:
        """The candidate's name, such as "onnxruntime:fp32"."""
        return f"{self.runtime}:{self.precision}"


def candidates(
    bundle: Bundle, *, device: str = "cpu", threads: int = 0, wanted: Collection[str] = ()
) -> tuple[list[Candidate], dict[str, str]]:
    """The candidates that can be measured here, the base first, and by name the reasons why others cannot.

    Args:
        bundle: where the graphs and engines are.
        device: "cpu", or "cuda" for the first GPU.
        threads: of one network on the CPU, see `engines.cpus.threads`; the same for all.
        wanted: names of runtimes or of candidates; empty for all.

    Raises:
        EdgeditError: for a name that there is not, or if nothing is left.

    Example:
        >>> [one.name for one in candidates(bundle)[0]]
        ['torch:fp32', 'onnxruntime:fp32']
    """
    offers: list[Candidate] = []
    missing: dict[str, str] = {}
    for runtime in available():
        try:
            offered = _offered(bundle, runtime, device, allowed(threads))
        except RuntimeUnavailableError as error:
            missing[runtime] = first_line(error)
            continue
        if isinstance(offered, str):
            missing[runtime] = offered
        else:
            offers += offered
    if "torch" not in available():
        missing[BASE] = "PyTorch is not installed: pip install 'edgedit[train,export]'"
    names = {part for one in offers for part in (one.runtime, one.name)}
    for name in wanted:
        if name not in names:
            reason = missing.get(name) or missing.get(name.partition(":")[0])
            raise EdgeditError(
                f"{name} cannot be measured here: {reason}"
                if reason
                else f"there is no runtime {name!r} here; {suggestion(name, names)}there are {', '.join(sorted(names))}"
            )
    if wanted:
        missing = {}
    elif device == "cpu":
        # A pass would take a minute.
        emulated = [one for one in offers if one.name == "torch:fp16"]
        missing |= {one.name: _EMULATED for one in emulated}
        offers = [one for one in offers if one not in emulated]
    chosen = [one for one in offers if not wanted or {one.runtime, one.name} & set(wanted)]
    if not chosen:
        raise EdgeditError("nothing can be measured: " + "; ".join(f"{k}: {v}" for k, v in missing.items()))
    return sorted(chosen, key=lambda one: one.name != BASE), missing


def _offered(bundle: Bundle, runtime: str, device: str, threads: int) -> list[Candidate] | str:
    """The candidates of a runtime on a device, or the reason why there are none."""
    if device == "cpu" and runtime in LIBRARIES:
        return "it needs a GPU: --device cuda"
    if device != "cpu" and runtime not in _ON_GPU:
        return "it runs on the processor: --device cpu"
    load = runtime_class(runtime).load
    takes = inspect.signature(load).parameters
    placed = _ON_GPU[runtime] if device != "cpu" else {}
    if "threads" in takes:
        placed = placed | {"threads": threads}
    named = [value for value in get_args(get_type_hints(load).get("precision")) if isinstance(value, str)]
    if named:
        # Of PyTorch's, some are arithmetics of GPUs; few processors have BF16, and the others emulate it.
        left_out = ("tf32", "bf16") if runtime == "torch" and device == "cpu" else ()
        here = [value for value in named if value not in left_out]
        return [Candidate(runtime, value, placed | {"precision": value}) for value in here]
    offered = [] if runtime in LIBRARIES else [Candidate(runtime, "fp32", placed)]
    for folder in (EngineFolder.load(bundle, name) for name in list_engines(bundle)):
        manifest = folder.manifest
        if manifest.runtime != runtime or (runtime == "onnxruntime" and manifest.target != device):
            continue
        # The graph as it is stands for its FP32 engine too.
        if any(one.precision == manifest.precision for one in offered):
            continue
        engine = {"precision": manifest.precision, "target": manifest.target}
        options = placed | {name: value for name, value in engine.items() if name in takes}
        offered.append(Candidate(runtime, manifest.precision, options, folder.name, frozenset(manifest.graphs)))
    return offered or "the bundle has no engine for it: edgedit build makes one"
