"""`edgedit bench ...`: the measurements under one name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from edgedit.commands.bench_latency import BenchCompare, BenchLatency, BenchReport
from edgedit.commands.bench_serve import BenchServe
from edgedit.commands.bench_table5 import BenchCount, BenchTime


@dataclass(frozen=True)
class Bench:
    """Measure: how fast a bundle is, the paper's Table 5, or what serving adds to an edit."""

    verb: (
        Annotated[BenchLatency, tyro.conf.subcommand("latency")]
        | Annotated[BenchCompare, tyro.conf.subcommand("compare")]
        | Annotated[BenchReport, tyro.conf.subcommand("report")]
        | Annotated[BenchCount, tyro.conf.subcommand("count")]
        | Annotated[BenchTime, tyro.conf.subcommand("time")]
        | Annotated[BenchServe, tyro.conf.subcommand("serve")]
    )
