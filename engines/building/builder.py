"""One strongly typed ONNX graph to one serialised engine."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engines.building.proof import describe, prove
from engines.building.timing import TimingCache
from engines.bundle.engine_manifest import OptimizationProfile, Precision, PrecisionProof
from engines.bundle.layers import LayerReport
from engines.contracts import TensorSpec
from engines.errors import EngineError
from engines.runtimes.backend import Backend, capability, current_capability, error_summary

if TYPE_CHECKING:
    from engines.precision import TypedGraph

_TOTAL = re.compile(r"Total (Activation|Device Persistent|Weights) Memory: (\d+) bytes")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of one engine's build."""

    profile: OptimizationProfile = field(default_factory=lambda: OptimizationProfile(min=1, opt=1, max=8))
    workspace: int | None = None
    """Most bytes of scratch memory that one kernel may take; None leaves it to the library."""
    weight_streaming: bool = False
    """Let weights stay in host memory and stream in."""
    memory_budget: int | None = None
    """Bytes of device memory that weights, activations and scratch may take together; streams the weights."""
    refit: bool = False
    """Let new weights be put into the engine. Needs a GPU: the builder compiles the refitting kernels on it."""
    version_compatible: bool = False
    """Let other versions of the library load it; TensorRT alone."""
    hardware: Literal["none", "same-compute-capability", "ampere-plus"] = "none"
    """The other GPUs that may load it; TensorRT alone, TensorRT-RTX takes several targets instead."""
    tf32: bool = False
    """Let FP32 convolutions and products round their inputs to TF32's 10 bits, which is the builder's own default."""
    timing_cache: bool = True
    """Keep measured kernels for the next build; TensorRT alone."""

    @property
    def streams(self) -> bool:
        return self.weight_streaming or self.memory_budget is not None

    def check(self, backend: Backend) -> None:
        """Raises an EngineError for what the backend, or this machine, does not offer."""
        if backend.rtx and self.version_compatible:
            raise EngineError(
                f"{backend.title} builds no version-compatible engines; build again for another version, or use "
                "--runtime tensorrt"
            )
        if backend.rtx and self.hardware != "none":
            raise EngineError(
                f"{backend.title} has no hardware compatibility levels; name every target: --target sm86,sm89"
            )
        if self.refit and current_capability() is None:
            raise EngineError(
                f"refit needs an NVIDIA GPU when building: without one {backend.title} builds no weight that can be "
                "replaced; leave --refit out, and build again for new weights"
            )

    def flags(self) -> dict[str, Any]:
        """The options as the manifest has them."""
        return {
            "workspace": self.workspace,
            "weight_streaming": self.streams,
            "memory_budget": self.memory_budget,
            "refit": self.refit,
            "hardware": self.hardware,
            "tf32": self.tf32,
        }


@dataclass(frozen=True)
class Built:
    """One serialised engine."""

    plan: Any
    """IHostMemory: a buffer of bytes."""
    report: LayerReport
    proof: PrecisionProof
    device_memory: int | None
    """Bytes of activations, scratch and persistent device memory at the largest batch, as the builder says."""
    weight_bytes: int
    seconds: float


def build_engine(
    backend: Backend, typed: TypedGraph, precision: Precision, targets: Sequence[str], options: BuildOptions
) -> Built:
    """Parses, proves and builds one graph.

    Args:
        targets: architectures, see `backend.targets`.

    Raises:
        EngineError: if the graph cannot be parsed or built, its inputs and outputs are not those it should have, the
            profile does not fit it, its precision is not what was asked for, or the memory budget is too small.
    """
    options.check(backend)
    started = time.perf_counter()
    with backend.messages() as messages:
        builder = backend.api.Builder(backend.logger)
        network = parse(backend, builder, typed.file, typed.name, messages)
        _check_contract(typed, network)
        report = describe(backend.api, network, typed.name, precision, typed.report)
        proof = prove(report, precision)
        config = _configure(backend, builder, network, typed.name, targets, options)
        cache = None
        if options.timing_cache and not backend.rtx:
            cache = TimingCache(backend, targets[0])
            cache.attach(config)
        del messages[:]
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            where = "+".join(targets)
            raise EngineError(f"graph {typed.name} could not be built for {where}: {error_summary(messages)}")
        if cache is not None:
            cache.keep(config)
        totals = _totals(messages)
    memory = totals.get("Activation")
    if memory is not None:
        memory += totals.get("Device Persistent", 0)
        if options.memory_budget is not None and memory > options.memory_budget:
            raise EngineError(
                f"graph {typed.name} needs {memory / 1e6:.1f} MB for activations at batch {options.profile.max}, more "
                f"than the memory budget of {options.memory_budget / 1e6:.1f} MB; raise it, or lower --batch-range"
            )
    weights = totals.get("Weights", sum(layer.weight_bytes for layer in report.layers))
    return Built(plan, report, proof, memory, weights, time.perf_counter() - started)


def parse(backend: Backend, builder: Any, file: Path, graph: str, messages: list[tuple[str, str]]) -> Any:
    """A strongly typed network from an ONNX file, its weights from the file beside it.

    Raises:
        EngineError: naming the node and operator that stopped the parser.
    """
    _check_opset(file, graph)
    api = backend.api
    network = builder.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = api.OnnxParser(network, backend.logger)
    parsed = parser.parse_from_file(str(file))
    if not parsed or parser.num_errors:
        first = parser.get_error(0) if parser.num_errors else None
        more = f" (and {parser.num_errors - 1} more)" if parser.num_errors > 1 else ""
        if first is not None and first.node_operator():
            why = error_summary([("ERROR", first.desc())])
            if why == "false" or "Plugin not found" in why:
                why = "it does not know the operator"
            name = first.node_name() or f"number {first.node()}"
            raise EngineError(
                f"graph {graph}: {backend.title} cannot read node {name} ({first.node_operator()}): {why}{more}"
            )
        why = error_summary([("ERROR", first.desc())]) if first is not None else error_summary(messages)
        raise EngineError(f"graph {graph}: {backend.title} cannot read it: {why}{more}")
    if not network.num_outputs:
        # What is not ONNX at all is parsed to an empty network.
        raise EngineError(f"graph {graph}: {file.name} holds no ONNX graph")
    return network


def _check_opset(file: Path, graph: str) -> None:
    """The parser takes any opset without a word and reads newer operators by older rules: newer ones are refused."""
    import onnx
    from google.protobuf.message import DecodeError

    from engines.precision.source import MAX_OPSET

    try:
        imports = onnx.load(file, load_external_data=False).opset_import
    except (DecodeError, OSError) as error:
        raise EngineError(f"graph {graph}: {file.name} is not an ONNX model: {error}") from error
    opset = max((entry.version for entry in imports if entry.domain in ("", "ai.onnx")), default=0)
    if opset > MAX_OPSET:
        raise EngineError(
            f"graph {graph} uses ONNX opset {opset}, and engines are built from at most {MAX_OPSET}; export it again "
            "with this edgedit"
        )


_SPEC_TYPES = {"FLOAT": "float32", "HALF": "float16"}


def _check_contract(typed: TypedGraph, network: Any) -> None:
    """The network's inputs and outputs are those the manifest will promise."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    for what, tensors, specs in (("input", inputs, typed.inputs), ("output", outputs, typed.outputs)):
        have = {t.name: (_SPEC_TYPES.get(t.dtype.name, t.dtype.name.lower()), tuple(t.shape)) for t in tensors}
        for spec in specs:
            dtype, shape = have.pop(spec.name, ("nothing", ()))
            if dtype != spec.dtype or not _fits(spec, shape):
                raise EngineError(f"graph {typed.name}: {what} {spec.name} is {dtype} {shape} instead of {spec}")
        if have:
            raise EngineError(f"graph {typed.name} has an {what} {next(iter(have))} that its contract does not name")


def _fits(spec: TensorSpec, shape: tuple[int, ...]) -> bool:
    return len(spec.shape) == len(shape) and all(
        want == have or (isinstance(want, str) and have < 0) for want, have in zip(spec.shape, shape, strict=True)
    )


def _configure(
    backend: Backend, builder: Any, network: Any, graph: str, targets: Sequence[str], options: BuildOptions
) -> Any:
    api = backend.api
    config = builder.create_builder_config()
    wanted = {
        "TF32": options.tf32,
        "WEIGHT_STREAMING": options.streams,
        "REFIT": options.refit,
        "VERSION_COMPATIBLE": options.version_compatible,
    }
    for name, on in wanted.items():
        (config.set_flag if on else config.clear_flag)(getattr(api.BuilderFlag, name))
    if options.workspace is not None:
        config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, options.workspace)
    if options.hardware != "none":
        level = options.hardware.replace("-", "_").upper()
        config.hardware_compatibility_level = getattr(api.HardwareCompatibilityLevel, level)
    # Layer names and types stay in the engine, so that `edgedit inspect` can show them.
    config.profiling_verbosity = api.ProfilingVerbosity.DETAILED
    if backend.architectures:
        config.num_compute_capabilities = len(targets)
        for index, name in enumerate(targets):
            if not config.set_compute_capability(getattr(api.ComputeCapability, name.upper()), index):
                raise EngineError(f"{backend.title} refuses target {name} ({capability(name)})")
    _add_profile(builder, config, network, graph, options.profile)
    return config


def _add_profile(builder: Any, config: Any, network: Any, graph: str, batch: OptimizationProfile) -> None:
    profile = builder.create_optimization_profile()
    text = f"{batch.min}:{batch.opt}:{batch.max}"
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        first, *rest = tuple(tensor.shape)
        if first >= 0 and (first, first, first) != (batch.min, batch.opt, batch.max):
            raise EngineError(
                f"graph {graph} takes batch {first} only (input {tensor.name}), not {text}: "
                f"--batch-range {first}:{first}:{first}"
            )
        try:
            profile.set_shape(tensor.name, *((size, *rest) for size in (batch.min, batch.opt, batch.max)))
        except (RuntimeError, TypeError, ValueError):
            raise EngineError(f"batch {text} is outside the limits of graph {graph} (input {tensor.name})") from None
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"batch {text} is outside the limits of graph {graph}")


def _totals(messages: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The memory figures among the builder's messages. Each comes once per target; the largest counts."""
    totals: dict[str, int] = {}
    for _, text in messages:
        if match := _TOTAL.search(text):
            totals[match[1]] = max(totals.get(match[1], 0), int(match[2]))
    return totals
