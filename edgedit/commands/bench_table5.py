"""The verb `bench table5`: the paper's efficiency table on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgedit.commands.common import Reporting, console
from engines.errors import EdgeditError


@dataclass(frozen=True, kw_only=True)
class BenchTable5(Reporting):
    """Count every method of the paper's Table 5: parameters and GMACs as published, by its convention, and complete."""

    counts: bool = False
    """Count parameters and GMACs; needs neither weights nor a GPU, but PyTorch."""
    components: bool = False
    """Count the parts of each method too."""

    def run(self) -> dict[str, Any]:
        if not self.counts:
            raise EdgeditError("nothing to do; say --counts")
        try:
            from bench.table5 import counts
        except ModuleNotFoundError as error:
            raise EdgeditError(f"`edgedit bench table5` needs {error.name}: pip install 'edgedit[train]'") from error
        return counts.summary(counts.run(counts.CountsOptions(components=self.components), console))
