"""One run of the queue, as its steps see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine
from bench.gpu.models import Model
from bench.gpu.options import GpuBenchOptions
from bench.timing import passes
from training.measuring.judges import JudgeFiles

NO_TIME = "no time was left"


@dataclass(frozen=True)
class Context:
    """The options of a run, the models that it measures, and its clock."""

    options: GpuBenchOptions
    models: list[Model]
    left: Callable[[], float]
    """The seconds that are left."""
    ceilings: dict[str, Any] = field(default_factory=dict)
    """Ceilings of the card; empty until the first step runs."""

    @property
    def warm(self) -> int:
        """Passes of everything before those that are timed."""
        return min(10, self.options.passes)

    @property
    def run_folder(self) -> Path:
        """The folder of the training run."""
        return self.options.run or self.options.out.with_name(f"{self.options.out.name}-run")

    @property
    def judges(self) -> JudgeFiles:
        """The judges that directions are fitted with."""
        options = self.options
        return JudgeFiles(age_gender=options.age_gender, expression=options.expression, pose=options.pose)

    def clocks(self) -> dict[str, str]:
        """The clocks of the device as they are now."""
        return machine.clocks(self.options.device)

    def timed(self, calls: Mapping[str, Callable[[], Any]], device: str) -> dict[str, list[float]]:
        """Milliseconds of each call, as many passes as were asked for or as there is time for; see `passes`."""
        return passes(calls, count=self.options.passes, warm=self.warm, device=device, until=lambda: self.left() < 2)
