"""The verb that looks into bundles: info."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from edgedit.commands.common import BundleOption, Reporting, console, elsewhere, opened, say
from edgedit.editor import PORTRAIT_BUNDLE
from engines.bundle.overview import overview


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
        summary = {"bundle": str(self.bundle), **overview(bundle, self.verify)}
        refined = "" if manifest.refinements is None else f" ({manifest.refinements} refinements)"
        say(
            f"{manifest.name}: method {manifest.method}{refined}, family {family.name}, {family.size} px, "
            f"W+ {family.w_rows}x{family.style_dim}, "
            f"feature {'x'.join(map(str, family.feature_shape))}, {manifest.precision}, {summary['bytes'] / 1e6:.1f} MB"
        )
        say(
            f"made {manifest.produced_by.date} by {manifest.produced_by.command}; licence {manifest.licence}"
            f"{elsewhere(bundle, self.bundle)}"
        )
        table = Table("graph", "inputs", "outputs")
        for name, graph in manifest.graphs.items():
            table.add_row(name, *("\n".join(map(_spec, specs)) for specs in (graph.inputs, graph.outputs)))
        console.print(table)
        say(f"directions: {', '.join(manifest.directions) or 'none'}")
        _print_engines(summary["engines"])
        say("signed, see `edgedit verify`" if summary["signed"] else "not signed")
        if self.verify:
            problems = summary["problems"]
            for problem in problems:
                say(f"MISMATCH {problem}")
            count = len(manifest.files) + sum(engine.get("files", 0) for engine in summary["engines"].values())
            say(f"verified {count} files: {f'{len(problems)} do not match' if problems else 'all match'}")
        return summary


def _print_engines(engines: dict[str, dict[str, Any]]) -> None:
    if not engines:
        say("engines: none")
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
            say(f"UNFIT {engine['problem']}")


def _spec(spec: Any) -> str:
    return f"{spec.name} {spec.dtype} {'x'.join(map(str, spec.shape))}"
