"""Compatibility of an engine with this machine, compared before it is read, so that the refusal says what to do.

TensorRT itself only says "Serialization error". Its rules (NVIDIA, TensorRT 11.4 and TensorRT-RTX "Engine
Compatibility"): an engine runs on the very version that built it (major, minor, patch and build) and on the GPU
architectures it was built for. A version-compatible one also runs on later versions of the same major version, and one
of TensorRT 10 on TensorRT 11; a hardware-compatible one on every GPU from Ampere (SM80) on. TensorRT-RTX knows neither.
The folders of ONNX Runtime and OpenVINO hold ONNX graphs, which are bound to nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from engines.bundle.contents import BundleContents
from engines.bundle.engine_manifest import EIGHT_BIT, ENGINES_FOLDER, ONNX_GRAPHS, EngineManifest, OptimizationProfile
from engines.bundle.manifest import WEIGHTS_FILE
from engines.bundle.provenance import option
from engines.contracts import SELECTIONS
from engines.errors import EngineError

_HARDWARE_LEVELS = ("same-compute-capability", "ampere-plus")
"""Values of the build flag "hardware"; the former lets an engine run on other GPUs of the same architecture only."""
_SIZES = ("workspace", "memory_budget")
"""Build flags that are bytes."""
_CARRIED_OVER = {(10, 11)}
"""Major versions of TensorRT that built a version-compatible engine and that run it."""


@dataclass(frozen=True)
class HostInfo:
    """The library, GPU and driver of a machine."""

    library: str
    """"TensorRT", "TensorRT-RTX", "ONNX Runtime" or "OpenVINO"."""
    version: str
    """The version as the library gives it: "11.4.0.24"."""
    compute_capability: str | None = None
    """"8.9"; None without a GPU."""
    driver: str | None = None
    """"580.65.06"; None if it is not known, which is then not held against the engine."""


def build_command(
    bundle: str | Path,
    runtime: str,
    target: str,
    precision: str,
    graphs: Collection[str],
    profile: OptimizationProfile | None = None,
    options: Iterable[str] = (),
) -> str:
    """The `edgedit build` that makes an engine.

    Args:
        target: as in engine.json: "sm86+sm89".
        graphs: the graphs that the engine folder should hold.
        profile: its batch sizes; None leaves them to the builder.
    """
    known = [word for word, names in SELECTIONS.items() if set(names) == set(graphs)]
    words = ["edgedit", "build", "-b", str(bundle), "--runtime", runtime, "--target", target.replace("+", ",")]
    words += ["--precision", precision, "--graph", *(known or graphs)]
    if profile is not None:
        words += ["--batch-range", f"{profile.min}:{profile.opt}:{profile.max}"]
    return shlex.join([*words, *options])


def rebuild_command(manifest: EngineManifest, bundle: str | Path, target: str | None = None) -> str:
    """The `edgedit build` that makes an engine folder once more, for another target if one is given. `--refit` is left
    out: it needs a GPU where the command may run without one."""
    profiles = [graph.profile for graph in manifest.graphs.values()]
    shared = profiles[0] if profiles and all(profile == profiles[0] for profile in profiles) else None
    options = ["--version-compatible"] if manifest.built.version_compatible else []
    if (level := manifest.built.flags.get("hardware")) in _HARDWARE_LEVELS:
        options += ["--hardware", str(level)]
    flags = manifest.built.flags
    options += [word for name in _SIZES if flags.get(name) for word in (option(name), str(flags[name]))]
    if flags.get("weight_streaming") and not flags.get("memory_budget"):
        options.append("--weight-streaming")
    if flags.get("tf32"):
        options.append("--tf32")
    if manifest.precision in EIGHT_BIT:
        options += ["--faces", "FACES"]
    target = target or manifest.target
    return build_command(bundle, manifest.runtime, target, manifest.precision, manifest.graphs, shared, options=options)


def target_of(compute_capability: str) -> str:
    """The target's name of a GPU: "sm89" of "8.9"."""
    return "sm" + compute_capability.replace(".", "")


def is_compatible(manifest: EngineManifest, host: HostInfo) -> bool:
    """True if `check_compatible` lets the engine pass."""
    try:
        check_compatible(manifest, host)
    except EngineError:
        return False
    return True


def check_compatible(manifest: EngineManifest, host: HostInfo, bundle: str | Path = "BUNDLE") -> None:
    """Compares what an engine needs with what there is.

    Args:
        bundle: the bundle's directory, for the command in the message.

    Raises:
        EngineError: naming what it was built for and by, what was found, and what to do.
    """
    built = manifest.built
    gpus = " or ".join(target_of(c).upper() for c in built.compute_capabilities)
    made = f"{ENGINES_FOLDER}/{manifest.folder} was built {f'for {gpus} ' if gpus else ''}by"
    made = f"{made} {built.library} {built.version}"
    if gpus and host.compute_capability is None:
        raise EngineError(
            f"{made}, found no GPU: run it where there is one, or on the CPU with `--runtime onnxruntime`"
        )
    other: list[str] = []
    target = None
    if gpus and host.compute_capability is not None and not _runs_on(manifest, host.compute_capability):
        target = target_of(host.compute_capability)
        other.append(target.upper())
    if host.library != built.library or not _runs_with(manifest, host.version):
        other.append(f"{host.library} {host.version}")
    if other:
        command = rebuild_command(manifest, bundle, target)
        raise EngineError(f"{made}, found {' and '.join(other)}: run `{command}`")
    floor = built.driver_floor
    if floor is not None and host.driver is not None and _numbers(host.driver) < _numbers(floor):
        raise EngineError(
            f"{ENGINES_FOLDER}/{manifest.folder} needs NVIDIA driver {floor} or newer, found {host.driver}: "
            "update the driver"
        )


def check_current(manifest: EngineManifest, bundle: BundleContents) -> None:
    """Makes sure that an engine was built from the graphs and weights that the bundle holds now.

    Raises:
        EngineError: if it was built from others; inversions and edits of different models do not go together.
    """
    files, graphs = bundle.manifest.files, bundle.manifest.graphs
    weights = files.get(WEIGHTS_FILE)
    stale = [] if weights is not None and weights.sha256 == manifest.weights_sha256 else ["weights"]
    for name, graph in manifest.graphs.items():
        if name not in graphs or files[graphs[name].file].sha256 != graph.source_sha256:
            stale.append(f"graph {name}")
    if stale:
        raise EngineError(
            f"{bundle.name}: {ENGINES_FOLDER}/{manifest.folder} was built from other {_and(stale)} than this bundle "
            f"has (the bundle was exported again since): run `{rebuild_command(manifest, bundle.path)}`"
        )


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(digits) for digits in re.findall(r"\d+", version)]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _runs_on(manifest: EngineManifest, compute_capability: str) -> bool:
    if compute_capability in manifest.built.compute_capabilities:
        return True
    if not manifest.built.hardware_compatible or manifest.runtime != "tensorrt":
        return False
    return manifest.built.flags.get("hardware") != _HARDWARE_LEVELS[0] and _numbers(compute_capability) >= (8,)


def _runs_with(manifest: EngineManifest, version: str) -> bool:
    built = _numbers(manifest.built.version)
    own = _numbers(version)
    # An ONNX graph is not bound to the version that wrote it; one that is too new fails when it is loaded.
    if manifest.runtime in ONNX_GRAPHS or version == manifest.built.version or (own and own == built):
        return True
    if not (built and own and manifest.built.version_compatible and own > built):
        return False
    majors = built[0], own[0]
    return manifest.runtime == "tensorrt" and (majors[0] == majors[1] or majors in _CARRIED_OVER)
