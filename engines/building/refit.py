"""New weights of the same family for engines that are there, without building them again.

The typed graphs of both bundles are written and compared: they must be the same but for the values of their weights.
Those that differ are put into the engine under their own names, which the parser keeps. Refitting runs on the GPU that
the engine was built for. What was measured of the old weights does not hold for the new ones: certificates go. A
quantised engine keeps the ranges that stand beside it, or takes others that were measured on the new weights; both are
weights of its graph like any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.building.build import Peaks
from engines.building.calibrated import Calibrated
from engines.building.proof import DTYPES
from engines.building.reuse import files_of, publish, reuse_others
from engines.building.staging import staged
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.engine_manifest import EIGHT_BIT, ONNX_GRAPHS, EngineManifest
from engines.bundle.folders import EngineFolder
from engines.bundle.preflight import HostInfo, rebuild_command
from engines.bundle.provenance import now, tool_versions
from engines.bundle.signing import open_engine
from engines.errors import EngineError, RuntimeUnavailableError
from engines.runtimes import backend as backends
from engines.runtimes.backend import Backend
from engines.runtimes.trt_engine import deserialize, driver_version, error_recorder


@dataclass(frozen=True)
class Weights:
    """The weights of a typed graph beside those of the same graph of another bundle."""

    all: Mapping[str, np.ndarray]
    """The weights of the new graph, by name."""
    changed: Sequence[str]
    """Names of those that differ from the old graph's."""


def refit(
    engine: str | Path,
    weights: str | Path,
    *,
    public_key: str | Path | None = None,
    peaks: Peaks | None = None,
    progress: Callable[[str], None] = lambda line: None,
    command: str = "edgedit refit",
) -> EngineManifest:
    """Writes an engine folder of one bundle into another one of the same family, with that one's weights.

    Args:
        engine: BUNDLE/engines/NAME, built with `--refit`, beside the bundle that it was built from.
        weights: the bundle with the new weights; a folder NAME in its `engines` is replaced as a build would do it.
        public_key: PEM file of the public key that must have signed the engine's bundle.
        peaks: called for every graph of a quantised engine, for ranges measured on the new weights; None keeps those
            that the engine has.
        progress: called with one line per step.
        command: the command line for the manifest, without paths of this machine.

    Raises:
        BundleError: if one of the two is not a bundle, or a file of it is damaged.
        EngineError: if the engine cannot be refitted, is damaged or was built for another machine; if the bundles'
            graphs differ in more than their weights; if a weight is refused; or if there is no GPU.
        RuntimeUnavailableError: if what is needed is not installed here.
        SignatureError: if a signature is required and does not hold.
        OutputError: if the folder cannot be written.
    """
    folder = EngineFolder.at(engine)
    old, new = Bundle.load(folder.bundle, verify=False), Bundle.load(weights, verify=False)
    manifest = folder.manifest
    check_refittable(manifest, old, new)
    backend = backends.load(manifest.runtime)
    gpu = backends.current_capability()
    if gpu is None:
        raise EngineError(
            f"refitting {folder.name} needs an NVIDIA GPU that runs it, and none is here; build from the new weights "
            f"instead: `{rebuild_command(manifest, weights)}`"
        )
    host = HostInfo(backend.title, backend.version, ".".join(map(str, gpu)), driver_version())
    names = list(manifest.graphs)
    open_engine(
        old,
        manifest.runtime,
        names[0],
        host,
        precision=manifest.precision,
        target=manifest.target,
        public_key=public_key,
    )
    built = manifest.built.model_copy(update={"command": command, "date": now(), "tools": tool_versions()})
    with staged(new.path, folder.name) as staging:
        entries, built = reuse_others(staging, new, built, names, progress)
        for name in names:
            entry = manifest.graphs[name]
            started = time.perf_counter()
            ranges = _ranges(folder, name, peaks, progress)
            differences = compare(old, new, name, manifest, staging.work, ranges)
            progress(f"{name}: {len(differences.changed)} of {len(differences.all)} weights differ")
            label = f"{old.name}: engines/{folder.name}/{entry.file}"
            staging.add(entry.file, refit_engine(backend, folder.read(entry.file), differences, label))
            for file in files_of(manifest, name):
                if file not in (entry.file, entry.ranges):
                    staging.add(file, folder.read(file))
            if ranges is not None:
                staging.add(ranges[1].file, ranges[1].document())
            if entry.certificate is not None:
                progress(f"{name}: its certificate was that of the old weights and is left out")
            digest, seconds = new.manifest.files[new.graph(name).file].sha256, round(time.perf_counter() - started, 3)
            entries[name] = entry.model_copy(update={"source_sha256": digest, "certificate": None, "seconds": seconds})
        runtime, target, precision = manifest.runtime, manifest.target, manifest.precision
        return publish(staging, new, entries, built, runtime=runtime, target=target, precision=precision)


def _ranges(
    folder: EngineFolder, graph: str, peaks: Peaks | None, progress: Callable[[str], None]
) -> tuple[Calibrated, Calibrated] | None:
    """The ranges of a quantised graph's data: in the engine as it is, and with the new weights."""
    entry = folder.manifest.graphs[graph]
    if entry.ranges is None:
        return None
    was = Calibrated.parse(folder.read(entry.ranges), f"{folder.name}/{entry.ranges}")
    if was.graph != graph:
        raise EngineError(f"{folder.name}/{entry.ranges} is of graph {was.graph}, not {graph}; build the engine again")
    if peaks is not None:
        return was, Calibrated.of(graph, peaks(graph))
    progress(f"{graph}: keeps the ranges of the old weights; --faces measures those of the new ones")
    return was, was


def check_refittable(manifest: EngineManifest, old: Bundle, new: Bundle) -> None:
    """Makes sure that an engine folder of one bundle can take the weights of another, as far as manifests tell.

    Raises:
        EngineError: if not, with what to do instead.
    """
    again = f"run `{rebuild_command(manifest, new.path)}`"
    name = manifest.folder
    if manifest.runtime in ONNX_GRAPHS:
        raise EngineError(f"{name} holds ONNX graphs, into which nothing is refitted: {again}")
    if manifest.precision in EIGHT_BIT and any(entry.ranges is None for entry in manifest.graphs.values()):
        raise EngineError(f"{name} is quantised, and the ranges it was built with are not kept beside it: {again}")
    if manifest.built.flags.get("refit") is not True:
        raise EngineError(f"{name} was built without --refit, so that its weights are fixed: {again}")
    if old.family != new.family:
        raise EngineError(
            f"{name} is of family {old.family.name}, and {new.name} of {new.family.name}: weights of the same family "
            f"alone fit; {again}"
        )
    if new.manifest.files[WEIGHTS_FILE].sha256 == manifest.weights_sha256:
        raise EngineError(f"{name} was built from the very weights of {new.name}: copy the engine folder instead")
    for graph in manifest.graphs:
        new.graph(graph)


def compare(
    old: Bundle,
    new: Bundle,
    graph: str,
    manifest: EngineManifest,
    folder: Path,
    ranges: tuple[Calibrated, Calibrated] | None = None,
) -> Weights:
    """The weights of a graph of two bundles, typed as the engine was.

    Args:
        old: the bundle that the engine was built from.
        new: the bundle with the new weights.
        folder: for files that are not kept.
        ranges: for 8 bits, those of the engine and those that the new weights should have.

    Raises:
        EngineError: if the graphs differ in more than their weights, or a weight does not fit the precision.
    """
    certificate = manifest.graphs[graph].certificate or {}
    widened = certificate.get("widened")
    keep_fp32 = [str(name) for name in widened] if isinstance(widened, list) else []
    try:
        from engines.precision import lower
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"refitting engines needs {error.name}: pip install onnx onnx-ir") from error
    peaks = (None, None) if ranges is None else (ranges[0].peaks, ranges[1].peaks)
    (was, before), (now_, after) = (
        _read(lower(bundle, graph, manifest.precision, folder, keep_fp32=keep_fp32, peaks=measured).file)
        for bundle, measured in zip((old, new), peaks, strict=True)
    )
    for file in folder.iterdir():
        file.unlink()
    if was != now_:
        where = next((b for a, b in zip(was, now_, strict=False) if a != b), "the number of its nodes")
        raise EngineError(
            f"graph {graph} of {new.name} differs from that of {old.name} in more than its weights ({where[:80]}): "
            f"run `{rebuild_command(manifest, new.path)}`"
        )
    changed = [name for name, array in after.items() if array.tobytes() != before[name].tobytes()]
    return Weights(after, changed)


def _read(file: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The structure of a typed graph, a line for each node and weight, and its weights."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(file).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    lines = [f"weight {name}: {array.dtype} {list(array.shape)}" for name, array in sorted(weights.items())]
    for node in graph.node:
        attributes = sorted(attribute.SerializeToString(deterministic=True).hex() for attribute in node.attribute)
        values = f"{', '.join(node.input)} -> {', '.join(node.output)}"
        lines.append(f"node {node.name} ({node.op_type}): {values} {' '.join(attributes)}".rstrip())
    return lines, weights


def refit_engine(backend: Backend, data: bytes, weights: Weights, name: str) -> memoryview:
    """An engine's bytes with other weights; it stays one that can be refitted.

    Args:
        data: the serialised engine, whose digest was checked.

    Raises:
        EngineError: if it does not load, a weight cannot be replaced or is missing, or the library fails.
    """
    api = backend.api
    engine = deserialize(backend, data, name).engine
    if not engine.refittable:
        raise EngineError(f"{name} cannot be refitted, whatever its manifest says; build the engine again")
    refitter = api.Refitter(engine, backend.logger)
    recorder = refitter.error_recorder = error_recorder(backend)
    known = set(refitter.get_all_weights())
    if fixed := [weight for weight in weights.changed if weight not in known]:
        raise EngineError(f"{name}: {_listed(fixed)} cannot be replaced; build the engine from the new weights")
    # The library reads the arrays until it has refitted, and does not hold them.
    held: list[np.ndarray] = []

    def put(weight: str) -> None:
        array = np.ascontiguousarray(weights.all[weight])
        held.append(array)
        if not refitter.set_named_weights(weight, _weights(api, array)):
            raise EngineError(f"{name}: {weight} ({array.dtype} {list(array.shape)}) is refused: {recorder.text()}")

    for weight in weights.changed:
        put(weight)
    # What the kernels computed beforehand from several weights wants all of them.
    for weight in refitter.get_missing_weights():
        if weight in weights.all:
            put(weight)
    if missing := list(refitter.get_missing_weights()):
        raise EngineError(f"{name}: {_listed(missing)} must be given too and are not in the graph; build the engine")
    if not refitter.refit_cuda_engine():
        raise EngineError(f"{name} could not be refitted: {recorder.text()}")
    config = engine.create_serialization_config()
    flags = api.SerializationFlag
    config.clear_flag(flags.EXCLUDE_WEIGHTS)
    if hasattr(flags, "INCLUDE_REFIT"):
        config.set_flag(flags.INCLUDE_REFIT)
    plan = engine.serialize_with_config(config)
    if plan is None:
        raise EngineError(f"{name} was refitted and cannot be written: {recorder.text()}")
    return memoryview(plan)


def _weights(api: Any, array: np.ndarray) -> Any:
    """The library's view of an array. NumPy has no FP8 of its own, and the library knows nobody else's."""
    if array.dtype.name == DTYPES["fp8"]:
        return api.Weights(api.DataType.FP8, array.ctypes.data, array.size)
    return api.Weights(array)


def _listed(names: Sequence[str]) -> str:
    more = f" (and {len(names) - 3} more)" if len(names) > 3 else ""
    return f"{'weight' if len(names) == 1 else 'weights'} {', '.join(names[:3])}{more}"
