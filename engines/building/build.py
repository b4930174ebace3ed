"""A bundle's graphs become an engine folder inside it: lowered, built, proven, and published whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue, ValidationError

from engines.building.builder import BuildOptions, build_engine
from engines.building.calibrated import Calibrated
from engines.building.proof import check_targets, prove
from engines.building.reuse import publish, reuse_others
from engines.building.staging import Staging, staged
from engines.bundle import Bundle
from engines.bundle.engine_manifest import (
    EIGHT_BIT,
    ON_CPU,
    ONNX_GRAPHS,
    BuiltWith,
    EngineGraph,
    EngineManifest,
    OptimizationProfile,
    Precision,
    RuntimeName,
    engine_folder,
    wider,
)
from engines.bundle.provenance import now, tool_versions
from engines.contracts import PARTS, PIPELINES, SELECTIONS
from engines.errors import EngineError, RuntimeUnavailableError
from engines.runtimes import backend as backends

if TYPE_CHECKING:
    from engines.precision import TypedGraph
    from engines.precision.quantise import Peak


Fit = Callable[[str], "tuple[frozenset[str], dict[str, JsonValue] | None]"]
"""A function from a graph to the nodes that its accuracy needs in FP32 beyond the rules, and its certificate; it raises
EngineError where none will do. See `engines.building.certificate.Certifier.fit`."""

Peaks = Callable[[str], "Mapping[str, Peak]"]
"""A function from a graph to the ranges of what its 8-bit products take. See `engines.precision.calibrate`."""


def build(
    bundle_path: str | Path,
    *,
    runtime: RuntimeName,
    target: str | None = None,
    precision: Precision = "fp16",
    graphs: Collection[str] = ("pipelines",),
    options: BuildOptions | None = None,
    fit: Fit | None = None,
    peaks: Peaks | None = None,
    progress: Callable[[str], None] = lambda line: None,
    command: str = "edgedit build",
) -> EngineManifest:
    """Builds `engines/<runtime>-<target>-<precision>/` of a bundle. A folder that is there is replaced; what it holds
    of other graphs goes into the new one if it still fits (see `keep`).

    Args:
        target: architectures separated by commas, or "current" (the default); for ONNX Runtime "cpu" (the default) or
            "cuda", for OpenVINO "cpu".
        precision: what the share of MACs is held against.
        graphs: names of graphs, or of several, see `engines.contracts.SELECTIONS`.
        fit: called for every graph before it is built; its certificate goes into the manifest. None: no certificate.
        peaks: called for every graph if `precision` has 8 bits.
        progress: called with one line per step.
        command: the command line for the manifest, without paths of this machine.

    Raises:
        BundleError: if it is not a bundle, or a file of it is damaged.
        RuntimeUnavailableError: if what builds is not installed here.
        EngineError: if an option, a graph or its precision will not do, or another build is under way.
        OutputError: if the folder cannot be written.
    """
    options = options or BuildOptions()
    # Every file that is read is checked when it is read.
    bundle = Bundle.load(bundle_path, verify=False)
    names = graph_names(bundle, graphs)
    maker = _OnnxGraph(runtime, target) if runtime in ONNX_GRAPHS else _TensorRT(runtime, target, options)
    check_targets(precision, maker.target.split("+"))
    measured = peaks if precision in EIGHT_BIT else None
    folder = engine_folder(runtime, maker.target, precision)
    with staged(bundle.path, folder) as staging:
        built = BuiltWith(**maker.built(), tools=tool_versions(), command=command, date=now())
        entries, built = reuse_others(staging, bundle, built, names, progress)
        for index, name in enumerate(names, 1):
            progress(f"{name} ({index} of {len(names)}): {precision} for {runtime} {maker.target}")
            keep_fp32, certificate = fit(name) if fit is not None else (frozenset[str](), None)
            started = time.perf_counter()
            ranges = Calibrated.of(name, measured(name)) if measured is not None else None
            peaks_of = ranges.peaks if ranges else None
            typed = _lower(bundle, name, precision, staging.work, keep_fp32, peaks_of, runtime in ON_CPU)
            entry = maker.make(staging, typed, precision)
            if ranges is not None:
                staging.add(ranges.file, ranges.document())
            entries[name] = EngineGraph(
                source_sha256=bundle.manifest.files[bundle.graph(name).file].sha256,
                inputs=typed.inputs,
                outputs=typed.outputs,
                profile=options.profile,
                certificate=certificate,
                ranges=ranges.file if ranges is not None else None,
                seconds=round(time.perf_counter() - started, 3),
                **entry,
            )
            progress(_summary(name, entries[name], staging))
        return publish(staging, bundle, entries, built, runtime=runtime, target=maker.target, precision=precision)


def graph_names(bundle: Bundle, graphs: Collection[str]) -> list[str]:
    """The graphs that names stand for, each once; all are those that the bundle has.

    Raises:
        EngineError: for an unknown name; the message lists those there are.
        BundleError: if the bundle lacks the graph.
    """
    known = {**SELECTIONS, **{name: (name,) for name in (*PIPELINES, *PARTS)}}
    if not graphs:
        raise EngineError(f"no graph is named; there are {', '.join(known)}")
    known["all"] = tuple(name for name in SELECTIONS["all"] if name in bundle.manifest.graphs)
    for name in graphs:
        if name not in known:
            raise EngineError(f"unknown graph {name!r}; there are {', '.join(known)}")
    names = list(dict.fromkeys(graph for name in graphs for graph in known[name]))
    for name in names:
        bundle.graph(name)
    return names


def parse_profile(text: str) -> OptimizationProfile:
    """MIN:OPT:MAX, or one number for all three.

    Raises:
        EngineError: if it is neither, or not in rising order.
    """
    try:
        sizes = [int(part) for part in text.split(":")]
        low, best, high = sizes * 3 if len(sizes) == 1 else sizes
        return OptimizationProfile(min=low, opt=best, max=high)
    except (ValueError, ValidationError):
        raise EngineError(
            f"--batch-range {text} must be MIN:OPT:MAX, whole numbers from 1 on in rising order"
        ) from None


def _lower(
    bundle: Bundle,
    graph: str,
    precision: str,
    folder: Path,
    keep_fp32: frozenset[str],
    peaks: Mapping[str, Peak] | None,
    single: bool,
) -> TypedGraph:
    try:
        from engines.precision import lower
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"building engines needs {error.name}: pip install onnx onnx-ir") from error
    return lower(bundle, graph, precision, folder, keep_fp32=keep_fp32, peaks=peaks, single=single)


def _summary(name: str, entry: EngineGraph, staging: Staging) -> str:
    wide = f", {len(entry.proof.wide)} layers in {wider(entry.proof.asked)} with reasons" if entry.proof.wide else ""
    size = sum(file.bytes for path, file in staging.files.items() if path.startswith(f"{name}."))
    memory = f", {entry.device_memory / 1e6:.1f} MB on the device" if entry.device_memory is not None else ""
    return (
        f"{name}: {entry.proof.share:.2%} of {entry.proof.macs / 1e9:.2f} GMACs in {entry.proof.asked}{wide}; "
        f"{size / 1e6:.1f} MB, {entry.seconds:.1f} s{memory}"
    )


def _layers_file(staging: Staging, name: str, report: Any) -> str:
    file = f"{name}.layers.json"
    staging.add(file, report.model_dump_json(exclude_defaults=True).encode())
    return file


class _TensorRT:
    """TensorRT and TensorRT-RTX."""

    def __init__(self, runtime: str, target: str | None, options: BuildOptions) -> None:
        self.backend = backend = backends.load(runtime)
        self.options = options
        self.targets = backends.targets(
            target or "current", runtime, backend.title, backend.architectures, backends.current_capability()
        )
        self.target = "+".join(self.targets)
        options.check(backend)

    def make(self, staging: Staging, typed: TypedGraph, precision: Precision) -> dict[str, Any]:
        built = build_engine(self.backend, typed, precision, self.targets, self.options)
        file = f"{typed.name}.engine"
        staging.add(file, built.plan)
        for used in staging.work.iterdir():
            used.unlink()
        return {
            "file": file,
            "layers": _layers_file(staging, typed.name, built.report),
            "proof": built.proof,
            "device_memory": built.device_memory,
            "weight_bytes": built.weight_bytes,
        }

    def built(self) -> dict[str, Any]:
        return {
            "library": self.backend.title,
            "version": self.backend.version,
            "compute_capabilities": [backends.capability(name) for name in self.targets],
            "hardware_compatible": self.options.hardware != "none",
            "version_compatible": self.options.version_compatible,
            "driver_floor": self.backend.driver_floor,
            "flags": self.options.flags(),
        }


class _OnnxGraph:
    """The typed graph itself, with its weights beside it, for ONNX Runtime or OpenVINO."""

    def __init__(self, runtime: RuntimeName, target: str | None) -> None:
        self.library = "ONNX Runtime" if runtime == "onnxruntime" else "OpenVINO"
        self.target = target or "cpu"
        if self.target not in (targets := ("cpu",) if runtime in ON_CPU else ("cpu", "cuda")):
            raise EngineError(f"unknown target {self.target!r}; {self.library} runs on {', '.join(targets)}")
        import onnxruntime

        self.api = onnxruntime
        try:
            self.version = onnxruntime.__version__ if runtime == "onnxruntime" else metadata.version(runtime)
        except metadata.PackageNotFoundError:
            raise RuntimeUnavailableError(f"building for OpenVINO needs it: pip install 'edgedit[{runtime}]'") from None

    def make(self, staging: Staging, typed: TypedGraph, precision: Precision) -> dict[str, Any]:
        proof = prove(typed.report, precision)
        settings = self.api.SessionOptions()
        settings.graph_optimization_level = self.api.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.log_severity_level = 4
        try:
            self.api.InferenceSession(str(typed.file), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises unrelated types, of the runtime and of Python
            raise EngineError(
                f"graph {typed.name}: ONNX Runtime cannot load it: {' '.join(str(error).split())}"
            ) from None
        weight_bytes = sum(f.stat().st_size for f in staging.work.iterdir() if f != typed.file)
        for file in sorted(staging.work.glob(f"{typed.name}.*")):
            staging.adopt(file)
        return {
            "file": typed.file.name,
            "layers": _layers_file(staging, typed.name, typed.report),
            "proof": proof,
            "device_memory": None,
            "weight_bytes": weight_bytes,
        }

    def built(self) -> dict[str, Any]:
        bound_to_nothing = {"compute_capabilities": [], "hardware_compatible": False, "version_compatible": False}
        return {"library": self.library, "version": self.version, "driver_floor": None, "flags": {}} | bound_to_nothing
