"""The options of a measurement of serving."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from edgedit.editor import PORTRAIT_BUNDLE
from engines.bundle.provenance import command_line, given
from engines.errors import EdgeditError
from engines.store import check_output

Model = Literal["edit", "edit_session"]
"""`edit`: an inversion's tensors and deltas in, an image out; `edit_session`: a handle and strengths in."""
Transport = Literal["grpc", "http", "shm"]
"""`shm` is gRPC with the tensors in system shared memory."""
Batching = Literal["on", "off"]
"""The server's batching; where it is on, it may answer several requests as one batch."""


@dataclass(frozen=True, kw_only=True)
class ServeBenchOptions:
    """Measure edits through a Triton server on this machine beside edits in process, in turns."""

    out: Path
    """The JSON file to write."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none is drawn)")] = None
    """Also draw latency and throughput, to this SVG or PNG (needs matplotlib)."""
    bundle: Path = PORTRAIT_BUNDLE
    """The bundle to serve."""
    model: tuple[Model, ...] = ("edit", "edit_session")
    """Models to ask."""
    transport: tuple[Transport, ...] = ("grpc", "http", "shm")
    """Ways to ask them; shm is gRPC with images in system shared memory."""
    batching: tuple[Batching, ...] = ("on", "off")
    """Servers to ask: with dynamic batching and without, side by side."""
    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Callers at a time, each with one request under way."""
    rounds: int = 4
    """Times that everything is measured."""
    seconds: float = 1.0
    """Seconds of each measurement, which begins when every caller has had its first answer."""
    threads: int = 1
    """Threads of ONNX Runtime for one network, in the server and in process; 0 for as many as there are cores."""
    samples: int = 200
    """Latencies kept of each row, evenly over the run; percentiles are of all."""
    perf_analyzer: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """NVIDIA's perf_analyzer, or the wheel of tritonclient that holds it, to ask the same server afterwards."""

    def check(self) -> None:
        """Finds out before any work whether these options will do.

        Raises:
            EdgeditError: for the first that will not, by its name.
        """
        for name in ("model", "transport", "batching", "concurrency"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise EdgeditError(f"--{name} must name at least one, each once")
        if min(self.concurrency) < 1 or max(self.concurrency) > 256:
            raise EdgeditError("--concurrency must be 1 to 256")
        if self.rounds < 1 or self.threads < 0 or self.samples < 1 or not 0 < self.seconds < 3600:
            raise EdgeditError("--rounds, --seconds and --samples must be above 0, and --threads 0 or more")
        if self.plot is not None:
            check_output(self.plot, (".svg", ".png"))
        if self.plot == self.out:
            raise EdgeditError(f"--out and --plot both name {self.out}; give each its own file")
        check_output(self.out)
        if self.perf_analyzer is not None and not self.perf_analyzer.is_file():
            raise EdgeditError(f"{self.perf_analyzer} is not a file; give perf_analyzer or the wheel that holds it")

    def command(self) -> str:
        """The command line that repeats this run, without paths of this machine."""
        return command_line("python -m bench.serve", given(self))
