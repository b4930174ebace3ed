"""An engine of TensorRT or TensorRT-RTX before it runs: deserialised, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from engines.bundle.engine_manifest import EngineGraph, OptimizationProfile
from engines.bundle.folders import EngineFolder
from engines.contracts import TensorSpec, mismatch
from engines.errors import EngineError
from engines.runtimes.backend import Backend, error_summary

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}

_DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Loaded:
    """An engine and what must live as long as it does."""

    backend: Backend
    runtime: Any
    recorder: Any
    engine: Any


def deserialize(backend: Backend, data: bytes, name: str) -> Loaded:
    """The engine in these bytes; `name` is for messages.

    Raises:
        EngineError: with what the library says.
    """
    recorder = error_recorder(backend)
    runtime = backend.api.Runtime(backend.logger)
    runtime.error_recorder = recorder
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise EngineError(f"{name} does not load in {backend.title} {backend.version}: {recorder.text()}")
    return Loaded(backend, runtime, recorder, engine)


def check_profile(graph: str, profile: OptimizationProfile, dynamic: Mapping[str, int]) -> None:
    """Raises a ValueError if a dynamic extent lies outside the engine's profile."""
    for name, extent in dynamic.items():
        if not profile.min <= extent <= profile.max:
            raise ValueError(
                f"graph {graph}: {name} {extent} outside {profile.min}..{profile.max}, which the engine was built for; "
                f"split it, or build the engine with --batch-range {min(extent, profile.min)}:{profile.opt}:"
                f"{max(extent, profile.max)}"
            )


def stream_weights(engine: Any, entry: EngineGraph, memory_budget: int, folder: str) -> None:
    """Keeps as many weights on the device as the budget leaves beside scratch memory; the others stream in.

    Raises:
        EngineError: if the engine was not built for it, or the budget does not even hold the rest.
    """
    streamable = engine.streamable_weights_size
    if not streamable and entry.weight_bytes + engine.device_memory_size_v2 <= memory_budget:
        return
    if not streamable:
        raise EngineError(f"engines/{folder} cannot stream its weights: build it with --memory-budget")
    # Scratch memory depends on the budget in its turn: what the fullest streaming needs comes first.
    engine.weight_streaming_budget_v2 = 0
    fixed = max(0, entry.weight_bytes - streamable) + engine.device_memory_size_v2
    if fixed > memory_budget:
        raise EngineError(
            f"engines/{folder} needs {fixed / 1e6:.1f} MB beside the weights that it can stream, more than the memory "
            f"budget of {memory_budget / 1e6:.1f} MB; raise it, or build for smaller batches"
        )
    engine.weight_streaming_budget_v2 = min(streamable, memory_budget - fixed)


def driver_version(file: Path = _DRIVER_FILE) -> str | None:
    """The NVIDIA driver's version, such as "580.65.06"; None where the system does not tell."""
    try:
        match = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", file.read_text(errors="replace"))
    except OSError:
        return None
    return match[1] if match else None


def error_recorder(backend: Backend) -> Any:
    """An error recorder: what goes wrong in the objects that it is given to, and in those alone."""
    return _recorder(backend.api.IErrorRecorder)()


@cache
def _recorder(interface: Any) -> type:
    class Recorder(interface):
        """A recorder of errors that the library's threads call: an exception must not leave it."""

        def __init__(self) -> None:
            interface.__init__(self)
            self._errors: list[tuple[Any, str]] = []

        def num_errors(self) -> int:
            return len(self._errors)

        def get_error_code(self, index: int) -> Any:
            return self._errors[index][0]

        def get_error_desc(self, index: int) -> str:
            return self._errors[index][1]

        def has_overflowed(self) -> bool:
            return False

        def clear(self) -> None:
            self._errors.clear()

        def report_error(self, code: Any, description: str) -> bool:
            self._errors.append((code, description))
            return True

        def text(self) -> str:
            """The first telling error on one line; forgets all of them."""
            errors, self._errors = self._errors, []
            return error_summary([("ERROR", description) for _, description in errors])

    return Recorder


def built_budget(folder: EngineFolder) -> int | None:
    budget = folder.manifest.built.flags.get("memory_budget")
    return budget if isinstance(budget, int) else None


def check_tensors(engine: Any, entry: EngineGraph, name: str) -> None:
    """Raises an EngineError if the engine's inputs and outputs are not those that its manifest lists."""
    specs: dict[str, list[TensorSpec]] = {"INPUT": [], "OUTPUT": []}
    for index in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(index)
        dtype = engine.get_tensor_dtype(tensor).name
        shape = [d if d >= 0 else "dynamic" for d in engine.get_tensor_shape(tensor)]
        if dtype not in _DTYPES:
            raise EngineError(f"{name} has {tensor} of type {dtype}, which NumPy lacks; build the engine again")
        spec = TensorSpec(name=tensor, dtype=_DTYPES[dtype], shape=shape)
        specs[engine.get_tensor_mode(tensor).name].append(spec)
    for what, listed, kind in (("input", entry.inputs, "INPUT"), ("output", entry.outputs, "OUTPUT")):
        if difference := mismatch(listed, specs[kind]):
            raise EngineError(f"{name} is not what its manifest says: {what} {difference}; build the engine again")
