"""TensorRT engines out of a bundle's engine folders, one per graph and compute capability."""

from __future__ import annotations

from dataclasses import dataclass

from engines.bundle import Bundle
from engines.bundle.folders import PREFERRED, EngineFolder, list_engines
from engines.bundle.preflight import build_command, check_current
from engines.contracts import mismatch
from engines.errors import EngineError
from serving.contract import MAX_BATCH


@dataclass(frozen=True)
class ServedEngine:
    """One engine for GPUs of one compute capability."""

    graph: str
    compute_capability: str
    """"8.9"."""
    folder: EngineFolder

    @property
    def file(self) -> str:
        """The engine's name beside model.onnx."""
        return f"model_sm{self.compute_capability.replace('.', '')}.plan"

    def read(self) -> bytes:
        """The engine, whose digest was checked; an EngineError if it is missing or damaged."""
        return self.folder.read(self.folder.graph(self.graph).file)


def find_engines(bundle: Bundle) -> tuple[dict[str, dict[str, ServedEngine]], list[str]]:
    """The engines to serve, by graph and compute capability, and one line per engine that cannot be served, and why.

    Raises:
        EngineError: if an engine folder of TensorRT is damaged.
    """
    engines: dict[str, dict[str, ServedEngine]] = {}
    notes: list[str] = []
    folders: list[EngineFolder] = []
    for name in list_engines(bundle):
        if name.startswith("tensorrt-rtx-"):
            notes.append(f"engines/{name} is not served: Triton's tensorrt backend loads no TensorRT-RTX engines")
        elif name.startswith("tensorrt-"):
            folders.append(EngineFolder.load(bundle, name))
    for folder in sorted(folders, key=lambda folder: PREFERRED.index(folder.manifest.precision)):
        if reason := _unfit(bundle, folder):
            notes.append(f"engines/{folder.name} is not served: {reason}")
            continue
        for graph in folder.manifest.graphs:
            if reason := _unfit_graph(bundle, folder, graph):
                notes.append(f"{graph} of engines/{folder.name} is not served: {reason}")
                continue
            for capability in folder.manifest.built.compute_capabilities:
                engines.setdefault(graph, {}).setdefault(capability, ServedEngine(graph, capability, folder))
    return engines, notes


def _unfit(bundle: Bundle, folder: EngineFolder) -> str | None:
    try:
        check_current(folder.manifest, bundle)
    except EngineError as error:
        return str(error)
    # Such an engine carries code for the host, which a server of ours is never told to allow.
    if folder.manifest.built.version_compatible:
        return "it is version-compatible, which Triton loads with host code allowed alone; build it without"
    return None


def _unfit_graph(bundle: Bundle, folder: EngineFolder, graph: str) -> str | None:
    engine, source, built = folder.graph(graph), bundle.manifest.graphs.get(graph), folder.manifest
    if source is None:
        return "the bundle has no such graph"
    if reason := mismatch(source.inputs, engine.inputs) or mismatch(source.outputs, engine.outputs):
        return f"its tensors are not the graph's: {reason}"
    profile = engine.profile
    if profile.min > 1 or profile.max < MAX_BATCH:
        wanted = profile.model_copy(update={"min": 1, "max": max(profile.max, MAX_BATCH)})
        command = build_command(bundle.name, "tensorrt", built.target, built.precision, [graph], wanted)
        return f"it takes batches of {profile.min} to {profile.max}, and 1 to {MAX_BATCH} are served: run `{command}`"
    return None
