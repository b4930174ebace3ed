"""`edgedit bench ...`: the measurements under one name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from edgedit.commands.bench_serve import BenchServe
from edgedit.commands.bench_table5 import BenchCount, BenchTime


@dataclass(frozen=True)
class Bench:
    """Measure: the paper's Table 5, or what serving adds to an edit."""

    verb: (
        Annotated[BenchCount, tyro.conf.subcommand("count")]
        | Annotated[BenchTime, tyro.conf.subcommand("time")]
        | Annotated[BenchServe, tyro.conf.subcommand("serve")]
    )
