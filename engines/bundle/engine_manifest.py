"""The manifest of an engine folder: the pydantic models of engine.json.

A bundle holds one folder per runtime, target and precision, `engines/<runtime>-<target>-<precision>/`. Each is whole in
itself and published by one rename, so that a build never touches the bundle's own manifest: engine.json lists every
other file of the folder with its digest, and engine.sha256 holds the digest of engine.json.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, ValidationError, model_validator

from engines.bundle.manifest import FileEntry, RelativePath, Strict, first_error, json_document
from engines.contracts import Name, TensorSpec
from engines.errors import EngineError
from engines.store import Digest

ENGINE_SCHEMA = 1
ENGINES_FOLDER = "engines"
ENGINE_FILE = "engine.json"
ENGINE_DIGEST_FILE = "engine.sha256"
MAX_ENGINE_MANIFEST_BYTES = 16 * 2**20

RuntimeName = Literal["tensorrt", "tensorrt-rtx", "onnxruntime", "openvino"]
ON_CPU: tuple[RuntimeName, ...] = ("openvino",)
"""Runtimes of the CPU alone. There FP16 gains nothing: what is not in 8 bits is in FP32."""
ONNX_GRAPHS: tuple[RuntimeName, ...] = ("onnxruntime", "openvino")
"""Runtimes whose engines are typed ONNX graphs, which are bound to no version and no machine."""
FloatPrecision = Literal["fp32", "fp16"]
"""Precisions that need no measured ranges."""
Precision = Literal[FloatPrecision, "int8", "fp8"]
EIGHT_BIT: tuple[Precision, ...] = ("int8", "fp8")
"""Precisions whose graphs are quantised with measured ranges."""


def wider(precision: str) -> str:
    """The types that are wider than a requested precision, in words."""
    return "FP16 or FP32" if precision in EIGHT_BIT else "FP32"


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

_TARGET = re.compile(r"current|cpu|cuda|sm\d{2,3}(\+sm\d{2,3})*")


class OptimizationProfile(Strict):
    """Batch sizes an engine takes, and the one it was tuned for."""

    min: Annotated[int, Field(ge=1)]
    opt: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"batch {self.min}:{self.opt}:{self.max} must be MIN:OPT:MAX in rising order")
        return self


class WideLayer(Strict):
    """One layer that computes in a wider type than was asked for: FP32, or FP16 in place of 8 bits."""

    name: str
    operator: str
    reason: str
    macs: Annotated[int, Field(ge=0)]


class PrecisionProof(Strict):
    """The precision of a built network, as its own tensors' types say."""

    asked: Precision
    share: Annotated[float, Field(ge=0.0, le=1.0)]
    """MACs in the asked precision over all MACs, at batch 1."""
    macs: Annotated[int, Field(ge=0)]
    source: Literal["network", "inspector", "graph"]
    """The source of the figures: the strongly typed network (needs no GPU), the engine inspector, or an ONNX graph."""
    wide: list[WideLayer]
    """The layers in a wider type, each with its reason; with 8 bits asked, FP16 layers without MACs are not listed."""


class EngineGraph(Strict):
    """One graph of the folder."""

    file: RelativePath
    """The serialised engine, or the typed ONNX graph for ONNX Runtime and OpenVINO."""
    layers: RelativePath | None
    """JSON of `engines.bundle.layers.LayerReport`: what `edgedit inspect` shows."""
    source_sha256: Sha256
    """Digest of the bundle's graph it was made from."""
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    profile: OptimizationProfile
    proof: PrecisionProof
    device_memory: Annotated[int, Field(ge=0)] | None
    """Bytes of device memory beside weights and inputs, as the builder states it; None where it does not."""
    weight_bytes: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]
    """The duration of the build."""
    certificate: dict[str, JsonValue] | None
    """Accuracy against the FP32 graph, see `engines.building.certificate`; None if it was not measured."""
    ranges: RelativePath | None = None
    """JSON of `engines.building.calibrated.Calibrated`: what its 8-bit data stand for. None in other precisions, and in
    engines that were built before ranges were kept."""


class BuiltWith(Strict):
    """The tools that made the engines, and the requirements for running them."""

    library: str
    """"TensorRT", "TensorRT-RTX", "ONNX Runtime" or "OpenVINO"."""
    version: str
    compute_capabilities: list[str]
    """["8.6", ...]; empty for what is not bound to a GPU."""
    hardware_compatible: bool
    version_compatible: bool
    driver_floor: str | None
    """The oldest driver, such as "580.65"."""
    flags: dict[str, JsonValue]
    tools: dict[str, str]
    command: str
    date: str


class EngineManifest(Strict):
    """Everything that an engine folder says of itself."""

    schema_version: Literal[1]
    bundle: Name
    weights_sha256: Sha256
    """Digest of the bundle's weights file that the engines carry."""
    runtime: RuntimeName
    target: Annotated[str, StringConstraints(pattern=_TARGET.pattern)]
    precision: Precision
    graphs: dict[Name, EngineGraph]
    files: dict[RelativePath, FileEntry]
    built: BuiltWith

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        for name, graph in self.graphs.items():
            for file in (graph.file, graph.layers, graph.ranges):
                if file is not None and file not in self.files:
                    raise ValueError(f"graph {name} refers to {file}, which is not among the files")
        return self

    @property
    def folder(self) -> str:
        """The folder's name inside `engines/`."""
        return engine_folder(self.runtime, self.target, self.precision)


def engine_folder(runtime: str, target: str, precision: str) -> str:
    """The name of an engine folder, such as "tensorrt-rtx-sm86-fp16"."""
    return f"{runtime}-{target}-{precision}"


def engine_digest_line(manifest: bytes) -> bytes:
    """The content of engine.sha256."""
    return Digest.of(manifest).line(ENGINE_FILE)


def parse_engine_manifest(raw: bytes, folder: str) -> EngineManifest:
    """The manifest in these bytes; `folder` names it in messages.

    Raises:
        EngineError: if it is not valid; one line with the first fault.
    """
    try:
        return EngineManifest.model_validate_json(raw)
    except ValidationError as error:
        raise EngineError(
            f"{folder}: {ENGINE_FILE} is not valid: {first_error(error)}; build the engine again"
        ) from None


def engine_manifest_bytes(manifest: EngineManifest) -> bytes:
    """The content of engine.json.

    Raises:
        ValueError: if a figure is not finite, or it is too large to be read back.
    """
    return json_document(manifest, MAX_ENGINE_MANIFEST_BYTES)
