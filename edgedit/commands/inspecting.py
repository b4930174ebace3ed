"""The verb that looks into engines: inspect."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit import __version__
from edgedit.commands.common import OptionalFile, Reporting, check_output, console
from engines.errors import EngineError, OutputError
from engines.inspector import (
    Comparison,
    Figures,
    Subject,
    assume_device,
    compare,
    comparison_page,
    engine_page,
    find_device,
    load,
    print_comparison,
    print_subject,
)
from engines.store import write

MADE_BY = f"Made by edgedit inspect, version {__version__}."


@dataclass(frozen=True, kw_only=True)
class Inspect(Reporting):
    """Show the layers of an engine: precision, MACs, bytes, floors on a device, and times where they were measured."""

    engine: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ENGINE")]
    """An engine folder (BUNDLE/engines/...), a bundle (its own FP32 graph), or a layer report (JSON)."""
    compare: Annotated[Path | None, tyro.conf.arg(metavar="OTHER", help_behavior_hint="")] = None
    """Show another one beside it, with layers matched by name or by the ONNX nodes fused into them."""
    graph: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: edit)")] = None
    """Which graph of an engine folder or bundle."""
    html: OptionalFile = None
    """Write a report for the browser, one file that loads nothing from anywhere."""
    gpu: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: by target)")] = None
    """The model of the GPU whose ceilings layers are held against, such as rtx3090."""
    peak_tflops: Annotated[float | None, tyro.conf.arg(help_behavior_hint="")] = None
    """In place of --gpu, with --bandwidth-gbs: its arithmetic ceiling in TFLOP/s."""
    bandwidth_gbs: Annotated[float | None, tyro.conf.arg(help_behavior_hint="")] = None
    """In place of --gpu, with --peak-tflops: its memory bandwidth in GB/s."""
    top: int = 12
    """Layers to print."""

    def run(self) -> dict[str, Any]:
        if self.html is not None:
            check_output(self.html, (".html", ".htm"))
            if self.html == self.json:
                raise OutputError(f"--json and --html both name {self.html}; give each its own file")
        if self.top < 0:
            raise EngineError(f"--top must not be negative, got {self.top}")
        device = find_device(self.gpu, self.peak_tflops, self.bandwidth_gbs)
        subject = load(self.engine, self.graph)
        if device is None:
            target = subject.engine.target if subject.engine is not None else None
            device = assume_device(target, Figures(subject.report).measured > 0)
        figures, page = Figures(subject.report, device), b""
        if self.compare is None:
            print_subject(console, subject, figures, self.top)
            if self.html is not None:
                page = engine_page(subject, figures, MADE_BY)
            summary = _summary(self.engine, subject, figures)
        else:
            other = load(self.compare, self.graph or _same_graph(subject, self.compare))
            second = Figures(other.report, device)
            matched = compare(subject.report, other.report)
            print_comparison(console, (subject, other), (figures, second), matched, self.top)
            if self.html is not None:
                page = comparison_page((subject, other), (figures, second), matched, MADE_BY)
            summary = _summary(self.engine, subject, figures) | {
                "compare": _summary(self.compare, other, second),
                "matched": _matched(matched),
            }
        if self.html is not None:
            write(self.html, page)
            console.print(f"wrote {self.html} ({len(page) / 1e6:.2f} MB)", markup=False)
        return summary | {"html": str(self.html) if self.html else None}


def _same_graph(subject: Subject, other: Path) -> str | None:
    """The graph that the first one shows; None for a layer report, which has but one."""
    return None if other.is_file() else subject.graph


def _summary(path: Path, subject: Subject, figures: Figures) -> dict[str, Any]:
    return {
        "engine": str(path),
        "graph": subject.graph,
        "title": subject.title,
        "facts": subject.facts,
        "macs": subject.report.macs,
        "weight_bytes": figures.weight_bytes,
        "activation_bytes": figures.activation_bytes,
        "layers": len(subject.report.layers),
        "precisions": [asdict(total) for total in figures.precisions],
        "fp16_share": figures.share("FP16"),
        "wide": {reason: [layer.name for layer in layers] for reason, layers in figures.wide.items()},
        "certificate": subject.certificate,
        "device": figures.device.name if figures.device is not None else None,
        "floor_ms": figures.total_floor,
        "measured_ms": figures.total_ms,
        "measured_layers": figures.measured,
    }


def _matched(comparison: Comparison) -> dict[str, Any]:
    def names(status: str) -> list[list[str]]:
        pairs = comparison.only(status)
        return [[x.name for s in (comparison.side_a(p), comparison.side_b(p)) for x in s.layers] for p in pairs]

    return {
        "counts": comparison.counts,
        "precision_differs": names("precision"),
        "only_a": names("only A"),
        "only_b": names("only B"),
    }
