"""The other graphs of an engine folder that is built again: kept if they still fit, dropped with a reason if not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from engines.building.staging import Staging
from engines.bundle import WEIGHTS_FILE, Bundle
from engines.bundle.engine_manifest import (
    ENGINE_SCHEMA,
    ENGINES_FOLDER,
    BuiltWith,
    EngineGraph,
    EngineManifest,
    Precision,
    RuntimeName,
)
from engines.bundle.folders import EngineFolder
from engines.contracts import PARTS, PIPELINES
from engines.errors import EngineError

_ORDER = (*PIPELINES, *PARTS)
_THEN = " && "


def reuse_others(
    staging: Staging,
    bundle: Bundle,
    built: BuiltWith,
    graphs: Collection[str],
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, EngineGraph], BuiltWith]:
    """Copies what the folder at `staging.place` holds of other graphs into the new folder, digests checked.

    A graph is kept if it was built from the bundle's graph and weights of now, by the same versions with the same
    options; batch sizes and certificates are each graph's own.

    Args:
        built: what the folder will say of how it was built.
        graphs: those that are built anew.
        progress: called with one line for what is kept, and one for what is not.

    Returns:
        The entries of the graphs that were kept, and `built` with the commands that made those before its own.

    Raises:
        OSError: if a copy cannot be written.
    """
    name = staging.place.name
    if not staging.place.is_dir():
        return {}, built
    try:
        folder = EngineFolder.load(bundle, name)
    except EngineError as error:
        progress(f"what {ENGINES_FOLDER}/{name} held is not kept: {error}")
        return {}, built
    others = [graph for graph in folder.manifest.graphs if graph not in graphs]
    reused: dict[str, EngineGraph] = {}
    dropped: dict[str, str] = {}
    for graph in others:
        reason = _difference(folder.manifest, graph, bundle, built) or _copy(staging, folder, graph)
        if reason is None:
            reused[graph] = folder.manifest.graphs[graph]
        else:
            dropped[graph] = reason
    if reused:
        progress(f"{', '.join(reused)} of {ENGINES_FOLDER}/{name}: kept")
    if dropped:
        reasons = dict.fromkeys(dropped.values())
        progress(f"{', '.join(dropped)} of {ENGINES_FOLDER}/{name}: not kept, {' and '.join(reasons)}")
    if not reused:
        return {}, built
    commands = dict.fromkeys((*folder.manifest.built.command.split(_THEN), built.command))
    return reused, built.model_copy(update={"command": _THEN.join(commands)})


def publish(
    staging: Staging,
    bundle: Bundle,
    graphs: Mapping[str, EngineGraph],
    built: BuiltWith,
    *,
    runtime: RuntimeName,
    target: str,
    precision: Precision,
) -> EngineManifest:
    """Writes the manifest of a folder, its graphs in the order that all folders have, and renames it into place.

    Raises:
        OSError: if it cannot be written or renamed; what was there is then unchanged.
    """
    manifest = EngineManifest(
        schema_version=ENGINE_SCHEMA,
        bundle=bundle.name,
        weights_sha256=bundle.manifest.files[WEIGHTS_FILE].sha256,
        runtime=runtime,
        target=target,
        precision=precision,
        graphs=dict(sorted(graphs.items(), key=lambda one: _ORDER.index(one[0]) if one[0] in _ORDER else len(_ORDER))),
        files=staging.files,
        built=built,
    )
    staging.publish(manifest)
    return manifest


def files_of(manifest: EngineManifest, graph: str) -> list[str]:
    """Files of the folder that belong to a graph: engine, layers, ranges and, for ONNX Runtime, weights."""
    entry = manifest.graphs[graph]
    named = (entry.file, entry.layers, entry.ranges)
    return [file for file in manifest.files if file in named or file.startswith(f"{graph}.")]


def _difference(old: EngineManifest, graph: str, bundle: Bundle, built: BuiltWith) -> str | None:
    """The reason why a graph of a folder does not go with one that is built now; None if it does."""
    files, sources = bundle.manifest.files, bundle.manifest.graphs
    if old.weights_sha256 != files[WEIGHTS_FILE].sha256:
        return "built from other weights than the bundle has now"
    if graph not in sources or old.graphs[graph].source_sha256 != files[sources[graph].file].sha256:
        return "built from another graph than the bundle has now"
    was, now = old.built, built
    if (was.library, was.version) != (now.library, now.version):
        return f"built by {was.library} {was.version}, and this is {now.library} {now.version}"
    if was.tools.get("edgedit") != now.tools.get("edgedit"):
        return "built by another version of edgedit"
    if _options(was) != _options(now):
        return "built with other options"
    return None


def _options(built: BuiltWith) -> tuple[object, ...]:
    """All that a folder says once for its graphs, and that would be wrong of one built differently."""
    return (
        built.flags,
        built.compute_capabilities,
        built.hardware_compatible,
        built.version_compatible,
        built.driver_floor,
    )


def _copy(staging: Staging, folder: EngineFolder, graph: str) -> str | None:
    """Copies a graph's files; if one is damaged, none, and why."""
    try:
        contents = {file: folder.read(file) for file in files_of(folder.manifest, graph)}
    except EngineError as error:
        return str(error)
    for file, data in contents.items():
        staging.add(file, data)
    return None
