"""The verb that looks into engines: inspect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit import __version__
from edgedit.commands.common import OptionalFile, Reporting, check_output, console
from engines.errors import EngineError, OutputError
from engines.inspector import (
    Comparison,
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
        subject, page = load(self.engine, self.graph), b""
        if device is None:
            target = subject.engine.target if subject.engine is not None else None
            device = assume_device(target, bool(subject.figures.timed.layers))
        subject = replace(subject, device=device)
        summary = _summary(self.engine, subject)
        if self.compare is None:
            print_subject(console, subject, self.top)
            if self.html is not None:
                page = engine_page(subject, MADE_BY)
        else:
            other = replace(load(self.compare, self.graph or _same_graph(subject, self.compare)), device=device)
            matched = compare(subject, other)
            print_comparison(console, matched, self.top)
            if self.html is not None:
                page = comparison_page(matched, MADE_BY)
            summary |= {"compare": _summary(self.compare, other), "matched": _matched(matched)}
        if self.html is not None:
            write(self.html, page)
            console.print(f"wrote {self.html} ({len(page) / 1e6:.2f} MB)", markup=False)
        return summary | {"html": str(self.html) if self.html else None}


def _same_graph(subject: Subject, other: Path) -> str | None:
    """The graph that the first one shows; None for a layer report, which has but one."""
    return None if other.is_file() else subject.graph


def _summary(path: Path, subject: Subject) -> dict[str, Any]:
    figures = subject.figures
    return {
        "engine": str(path),
        "graph": subject.graph,
        "title": subject.title,
        "facts": subject.facts,
        "macs": figures.macs,
        "weight_bytes": figures.weight_bytes,
        "activation_bytes": figures.activation_bytes,
        "layers": len(figures.layers),
        "precisions": [
            {
                "precision": label,
                "layers": len(part.layers),
                "macs": part.macs,
                "share": figures.share(label),
                "weight_bytes": part.weight_bytes,
                "activation_bytes": part.activation_bytes,
            }
            for label, part in figures.by_precision.items()
        ],
        "fp16_share": figures.share("FP16"),
        "wide": {reason: [layer.name for layer in layers] for reason, layers in subject.wide.items()},
        "certificate": subject.certificate,
        "device": subject.device.name if subject.device is not None else None,
        "floor_ms": figures.floor,
        "measured_ms": figures.timed.milliseconds,
        "measured_layers": len(figures.timed.layers),
    }


def _matched(comparison: Comparison) -> dict[str, Any]:
    def names(status: str) -> list[list[str]]:
        return [[layer.name for side in pair.sides for layer in side.layers] for pair in comparison.only(status)]

    return {
        "counts": comparison.counts,
        "precision_differs": names("precision"),
        "only_a": names("only A"),
        "only_b": names("only B"),
    }
