"""The verb that looks into engines: inspect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit import __version__
from edgedit.commands.common import OptionalFile, Reporting, console, say
from engines.errors import EngineError, OutputError
from engines.inspector import inspect
from engines.store import check_output, write

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
        inspection = inspect(
            self.engine,
            self.compare,
            graph=self.graph,
            gpu=self.gpu,
            peak_tflops=self.peak_tflops,
            bandwidth_gbs=self.bandwidth_gbs,
        )
        inspection.show(console, self.top)
        if self.html is not None:
            page = inspection.page(MADE_BY)
            write(self.html, page)
            say(f"wrote {self.html} ({len(page) / 1e6:.2f} MB)")
        return inspection.summary() | {"html": str(self.html) if self.html else None}
