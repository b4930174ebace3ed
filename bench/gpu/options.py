"""The options of a run of the queue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from engines.bundle.provenance import command_line, given

Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True, kw_only=True)
class GpuBenchOptions:
    """Do what waits for a GPU, inside the seconds given; run it again to go on."""

    out: Path
    """Folder of results and state. To go on from another machine's results, give a copy of its folder."""
    budget: float = 540.0
    """Seconds that it may take."""
    device: Literal["cuda", "cpu"] = "cuda"
    """The first GPU; or cpu, which tries the queue itself where there is no GPU."""
    job: Repeated = ()
    """Only this job; may be repeated."""
    bundle: Repeated = ()
    """NAME=DIRECTORY of a bundle; may be repeated. The portrait bundle if left out; where its generator is not at hand,
    its family with random weights."""
    generator: Path | None = None
    """File of `python -m bench.gpu.carried`, which completes the portrait bundle."""
    random: tuple[str, ...] = ("faces-1024",)
    """Families to measure with random weights."""
    row: Repeated = ()
    """Only this row of the latency table; may be repeated."""
    method: Repeated = ()
    """Only this method of the paper's Table 5, and e4e; may be repeated."""
    passes: int = 100
    """Passes of everything that is timed."""
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Batch sizes of the scaling job."""
    edits: tuple[int, ...] = (1, 4, 16)
    """Edits of one photo, with one inversion and with an inversion each."""
    faces: Path | None = None
    """Folder or tar of aligned faces, for training and accuracy; accuracy makes do with edgedit's own photo."""
    lpips: Path | None = None
    """LPIPS weights (safetensors)."""
    identity: Path | None = None
    """Face embedder (ONNX)."""
    age_gender: Path | None = None
    """Judge of age and gender (ONNX), for the directions."""
    expression: Path | None = None
    """Judge of expression (ONNX), for the directions."""
    pose: Path | None = None
    """Judge of head pose (ONNX), for the directions."""
    max_faces: int = 64
    """Held-out photos that accuracy is measured on, at most."""
    recipe: str = "faces-1024-mobile"
    """The recipe of the training."""
    run: Path | None = None
    """Folder of the training run; OUT-run if left out. Checkpoints in OUT that have gone further are put there."""
    from_bundle: Path | None = None
    """Bundle that the training starts from."""
    steps: int | None = None
    """Training steps of every stage, in place of the recipe's."""
    training_share: float = 0.4
    """The share of the time that training may take."""
    least: float = 20.0
    """Seconds without which no measurement is begun."""

    @property
    def on_gpu(self) -> bool:
        """True if it is a GPU that is measured."""
        return self.device != "cpu"

    def command(self) -> str:
        """The command line that repeats this run, without paths of this machine."""
        options = given(self)
        for name in {"job", "bundle", "row", "method"} & options.keys():
            options[name] = [item.partition("=")[0] + "=BUNDLE" if name == "bundle" else item for item in options[name]]
        return command_line("python -m bench.gpu", options)
