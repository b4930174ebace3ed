"""What a run of the queue is asked for, and what its steps ask it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine
from bench.gpu.models import Model
from training.measuring.judges import JudgeFiles


@dataclass
class Context:
    """One run."""

    device: str
    out: Path
    models: list[Model]
    left: Callable[[], float]
    """Seconds that are left."""
    seconds: float
    """All that this run was given."""
    passes: int = 100
    warm: int = 5
    least: float = 20.0
    """Seconds without which no measurement is begun."""
    rows: tuple[str, ...] = ()
    """Names of latency rows; empty: all."""
    methods: tuple[str, ...] = ()
    """Of the paper's Table 5; empty: all."""
    batches: tuple[int, ...] = (1, 2, 4, 8, 16)
    edits: tuple[int, ...] = (1, 4, 16)
    data: Path | None = None
    lpips: Path | None = None
    identity: Path | None = None
    judges: JudgeFiles = field(default_factory=JudgeFiles)
    photos: int = 64
    recipe: str = "faces-1024-mobile"
    run: Path | None = None
    """Folder of the training run; DIR-run if left out."""
    from_bundle: Path | None = None
    steps: int | None = None
    """Training steps of every stage in place of the recipe's."""
    share: float = 0.4
    """Of the time, what training may take."""
    ceilings: dict[str, Any] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def run_folder(self) -> Path:
        return self.run or self.out.with_name(f"{self.out.name}-run")

    def clocks(self) -> dict[str, str]:
        """As they are now."""
        return machine.clocks(self.device)
