"""The verb that looks into bundles: info."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from edgedit.commands.common import BundleOption, Reporting, console, elsewhere, opened
from edgedit.editor import PORTRAIT_BUNDLE
from engines.bundle import Bundle
from engines.bundle.engine_manifest import ENGINES_FOLDER
from engines.bundle.folders import EngineFolder, list_engines
from engines.bundle.preflight import check_current
from engines.bundle.signing import is_signed
from engines.errors import EngineError


@dataclass(frozen=True, kw_only=True)
class Info(Reporting):
    """Say what is in a bundle; with --verify, check the digest of every file in it."""

    bundle: BundleOption = PORTRAIT_BUNDLE
    """The bundle to look into."""
    verify: bool = False
    """Check every file's size and digest; each mismatch is listed, and with any the exit status is 1."""

    def run(self) -> dict[str, Any]:
        bundle = opened(self.bundle, verify=False)
        manifest, family = bundle.manifest, bundle.family
        size = sum(entry.bytes for entry in manifest.files.values())
        refined = "" if manifest.refinements is None else f" ({manifest.refinements} refinements)"
        console.print(
            f"{manifest.name}: method {manifest.method}{refined}, family {family.name}, {family.size} px, "
            f"W+ {family.w_rows}x{family.style_dim}, "
            f"feature {'x'.join(map(str, family.feature_shape))}, {manifest.precision}, {size / 1e6:.1f} MB",
            markup=False,
        )
        console.print(
            f"made {manifest.produced_by.date} by {manifest.produced_by.command}; licence {manifest.licence}"
            f"{elsewhere(bundle, self.bundle)}",
            markup=False,
        )
        table = Table("graph", "inputs", "outputs")
        for name, graph in manifest.graphs.items():
            table.add_row(name, *("\n".join(map(_spec, specs)) for specs in (graph.inputs, graph.outputs)))
        console.print(table)
        console.print(f"directions: {', '.join(manifest.directions) or 'none'}", markup=False)
        engines = {name: _engine(bundle, name) for name in list_engines(bundle)}
        _print_engines(engines)
        summary: dict[str, Any] = {"bundle": str(self.bundle), "bytes": size, **manifest.model_dump(mode="json")}
        summary |= {"engines": engines, "signed": is_signed(bundle)}
        console.print(f"{'signed, see `edgedit verify`' if summary['signed'] else 'not signed'}")
        if self.verify:
            problems = [str(problem) for problem in bundle.verify()]
            summary["problems"] = problems
            for problem in problems:
                console.print(f"MISMATCH {problem}", markup=False)
            if problems:
                more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
                in_engine = problems[0].startswith(f"{ENGINES_FOLDER}/")
                advice = "build the engine again" if in_engine else "copy the bundle again, or export it again"
                summary["error"] = f"{bundle.name}: {problems[0]}{more}; {advice}"
            count = len(manifest.files) + sum(engine.get("files", 0) for engine in engines.values())
            console.print(f"verified {count} files: {f'{len(problems)} do not match' if problems else 'all match'}")
        return summary


def _engine(bundle: Bundle, name: str) -> dict[str, Any]:
    """What is said of an engine folder: of a damaged one that it is, and of no file whose digest was not checked."""
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


def _print_engines(engines: dict[str, dict[str, Any]]) -> None:
    if not engines:
        console.print("engines: none")
        return
    # A folder's name is its runtime, target and precision.
    table = Table("engine", "graphs", "of its MACs", "MB")
    table.columns[0].no_wrap = True
    for name, engine in engines.items():
        if "graphs" in engine:
            shares = [f"{100 * share:.2f} % in {engine['precision']}" for share in engine["graphs"].values()]
            table.add_row(name, "\n".join(engine["graphs"]), "\n".join(shares), f"{engine['bytes'] / 1e6:.1f}")
    console.print(table)
    for engine in engines.values():
        if engine["problem"]:
            console.print(f"UNFIT {engine['problem']}", markup=False)


def _spec(spec: Any) -> str:
    return f"{spec.name} {spec.dtype} {'x'.join(map(str, spec.shape))}"
