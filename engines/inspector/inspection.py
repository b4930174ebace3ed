"""An inspection from plain arguments: one graph, or two beside each other, for a terminal, a browser or a program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from engines.inspector.compare import Comparison, compare
from engines.inspector.devices import assume_device, find_device
from engines.inspector.page import comparison_page, engine_page
from engines.inspector.subject import Subject, load
from engines.inspector.terminal import print_comparison, print_subject


@dataclass(frozen=True)
class Inspection:
    """A graph that is looked into, and where it is held against another one, how their layers match."""

    paths: tuple[Path, ...]
    """The place of the graph, and that of the other one."""
    subject: Subject
    comparison: Comparison | None = None

    def show(self, console: Console, top: int) -> None:
        """Prints it, with so many layers at most."""
        if self.comparison is None:
            print_subject(console, self.subject, top)
        else:
            print_comparison(console, self.comparison, top)

    def page(self, made_by: str) -> bytes:
        """The report for a browser, UTF-8; `made_by` is its last line."""
        return (
            engine_page(self.subject, made_by) if self.comparison is None else comparison_page(self.comparison, made_by)
        )

    def summary(self) -> dict[str, Any]:
        """The figures as JSON takes them; those of another graph are under `compare`, how layers match, `matched`."""
        first = _summary(self.paths[0], self.subject)
        if self.comparison is None:
            return first
        return first | {"compare": _summary(self.paths[1], self.comparison.b), "matched": _matched(self.comparison)}


def inspect(
    engine: Path,
    other: Path | None = None,
    *,
    graph: str | None = None,
    gpu: str | None = None,
    peak_tflops: float | None = None,
    bandwidth_gbs: float | None = None,
) -> Inspection:
    """Looks into an engine.

    Args:
        engine: an engine folder, a bundle, or a layer report (JSON).
        other: another one, to be matched with it layer by layer.
        graph: the graph of a folder or bundle; None takes `edit`, or else the first, of `other` the same.
        gpu: the device whose ceilings layers are held against; None takes one of the engine's target.
        peak_tflops, bandwidth_gbs: two ceilings in its place.

    Raises:
        EdgeditError: if one of them cannot be inspected, or the device is unknown.

    Example:
        >>> inspect(bundle.path, graph="reconstruct").summary()["graph"]
        'reconstruct'
    """
    device = find_device(gpu, peak_tflops, bandwidth_gbs)
    subject = load(engine, graph)
    if device is None:
        target = subject.engine.target if subject.engine is not None else None
        device = assume_device(target, bool(subject.figures.timed.layers))
    subject = replace(subject, device=device)
    if other is None:
        return Inspection((engine,), subject)
    # A layer report has but one graph.
    second = load(other, graph or (None if other.is_file() else subject.graph))
    return Inspection((engine, other), subject, compare(subject, replace(second, device=device)))


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
