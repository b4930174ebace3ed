"""The options of a run that times the methods of Table 5."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from engines.bundle.engine_manifest import FloatPrecision
from engines.errors import EdgeditError


@dataclass(frozen=True, kw_only=True)
class TimeOptions:
    """Time every method of the paper's Table 5 with random weights."""

    method: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]", help_behavior_hint="(default: all)")
    ] = ()
    """Only these methods, and e4e, which ratios are given to."""
    family: str = "faces-1024"
    """Or cars-512x384, for the methods that do cars."""
    how: Literal["eager", "onnxruntime"] = "eager"
    """The methods run in PyTorch as they are written, or as ONNX graphs, which are exported first."""
    device: Literal["cpu", "cuda"] = "cpu"
    """torch device; the first GPU is cuda."""
    precision: FloatPrecision = "fp32"
    """The precision of PyTorch's arithmetic."""
    tf32: bool = False
    """Let FP32 products round to TF32, on a GPU."""
    passes: int = 10
    """Timed passes of each method."""
    warmup: int = 2
    """Passes before those."""
    minutes: Annotated[float, tyro.conf.arg(help_behavior_hint="(default: no limit)")] = math.inf
    """No round is begun that would probably end later, but for the first."""
    threads: int = 0
    """Threads of one network on the CPU, never more than this process may use; 0 leaves them to PyTorch, and is one per
    core in ONNX Runtime."""
    seed: int = 0
    """The seed of weights, images and the order of the methods."""
    no_memory: bool = False
    """Leave out peak memory, which takes a process for each method on the CPU."""
    keep_graphs: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: they are thrown away)")
    ] = None
    """With --how onnxruntime: keep the exported graphs there, two bytes a parameter, and use those that are."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Also draw GMACs against time, to this SVG or PNG (needs matplotlib)."""

    def check(self) -> None:
        """Finds out before any work whether these options will do and go together.

        Raises:
            EdgeditError: for the first that will not, by its name.
        """
        if self.passes < 1 or self.warmup < 1 or not self.minutes > 0:
            raise EdgeditError("--passes and --warmup must be 1 or more, and --minutes above 0")
        if self.keep_graphs is not None and self.how != "onnxruntime":
            raise EdgeditError("--keep-graphs goes with --how onnxruntime")
        if self.tf32 and self.precision != "fp32":
            raise EdgeditError("--tf32 rounds FP32 products: leave it or --precision fp16 out")
