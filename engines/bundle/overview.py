"""A bundle in plain values: its manifest, its engines, and the files that are not as they should be."""

from __future__ import annotations

from typing import Any

from engines.bundle import Bundle
from engines.bundle.engine_manifest import ENGINES_FOLDER
from engines.bundle.folders import EngineFolder, list_engines
from engines.bundle.preflight import check_current
from engines.bundle.signing import is_signed
from engines.errors import EngineError


def overview(bundle: Bundle, verify: bool = False) -> dict[str, Any]:
    """The manifest with the bundle's size, its engines by folder, and whether it is signed.

    Args:
        bundle: opened without a check of its files.
        verify: also check the size and digest of every file: `problems` lists each mismatch, and with any `error` says
            in one line what to do.

    Example:
        >>> overview(bundle)["signed"]
        False
    """
    manifest = bundle.manifest
    summary: dict[str, Any] = {"bytes": sum(entry.bytes for entry in manifest.files.values())}
    summary |= manifest.model_dump(mode="json")
    summary |= {"engines": {name: _engine(bundle, name) for name in list_engines(bundle)}, "signed": is_signed(bundle)}
    if verify:
        problems = summary["problems"] = [str(problem) for problem in bundle.verify()]
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            in_engine = problems[0].startswith(f"{ENGINES_FOLDER}/")
            advice = "build the engine again" if in_engine else "copy the bundle again, or export it again"
            summary["error"] = f"{bundle.name}: {problems[0]}{more}; {advice}"
    return summary


def _engine(bundle: Bundle, name: str) -> dict[str, Any]:
    """An engine folder: of a damaged one that it is, and of no file whose digest was not checked."""
    try:
        manifest = EngineFolder.load(bundle, name).manifest
    except EngineError as error:
        return {"problem": str(error)}
    try:
        check_current(manifest, bundle)
        problem = None
    except EngineError as error:
        problem = str(error)
    return {
        "runtime": manifest.runtime,
        "target": manifest.target,
        "precision": manifest.precision,
        "graphs": {graph: entry.proof.share for graph, entry in manifest.graphs.items()},
        "library": f"{manifest.built.library} {manifest.built.version}",
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "files": len(manifest.files),
        "problem": problem,
    }
