"""Strongly typed graphs for a server that builds its engines itself, beside the models that they are built from.

TensorRT takes the precision of a network from its graph alone (see `engines.precision`): the engine of a bundle's FP32
graph would be one in FP32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from engines.bundle import Bundle
from engines.bundle.folders import EngineFolder, list_engines
from engines.bundle.preflight import check_current
from engines.errors import EngineError, RuntimeUnavailableError
from serving.deploy.repository import ENGINE_SOURCE

EnginePrecision = Literal["fp16", "fp32"]


def put_engine_source(bundle: Bundle, graph: str, precision: EnginePrecision, folder: Path) -> None:
    """Writes the typed graph of a model into its version's folder.

    One that the bundle has among its engines, for ONNX Runtime, is taken as it is: what its certificate found out is in
    it. Otherwise the graph is typed now.

    Raises:
        EngineError: if such an engine folder is damaged, or the graph cannot be typed.
        RuntimeUnavailableError: if there is none, and onnx is not installed.
        OSError, OutputError: if it cannot be written.
    """
    if (built := _built(bundle, graph, precision)) is not None:
        file = built.graph(graph).file
        (folder / ENGINE_SOURCE).write_bytes(built.read(file))
        for listed in built.manifest.files:
            if listed.startswith(f"{graph}.") and listed not in (file, built.graph(graph).layers):
                (folder / listed).write_bytes(built.read(listed))
        return
    try:
        from engines.precision import lower
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"graphs for TensorRT plans need {error.name}: pip install onnx onnx-ir, or leave --build-engines out"
        ) from error
    lower(bundle, graph, precision, folder).file.rename(folder / ENGINE_SOURCE)


def _built(bundle: Bundle, graph: str, precision: str) -> EngineFolder | None:
    for name in list_engines(bundle):
        if name.startswith("onnxruntime-") and name.endswith(f"-{precision}"):
            folder = EngineFolder.load(bundle, name)
            try:
                check_current(folder.manifest, bundle)
            except EngineError:
                continue  # made from other weights
            if graph in folder.manifest.graphs:
                return folder
    return None
