"""The guard of the portrait bundle in continuous integration: it must not grow unannounced, and its speed is shown.

    python -m bench.guard

Parameters, multiply-accumulates and ONNX nodes of every graph stand in `bench/results/guard.json`; where one of them
is higher now, the exit status is 1. `--update` writes the file anew, which is how growth is announced. Then ratios are
measured for a minute or so and printed beside the committed ones: other programs may run here, so that they never fail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import onnx
import tyro
from pydantic import BaseModel, ConfigDict, ValidationError

from bench.latency.candidates import candidates
from bench.latency.compare import compare, remarks, table
from bench.latency.measure import Budget, measure
from bench.latency.result import parse, read
from bench.machine import about
from bench.program import console, program, save, say
from edgedit.editor import PORTRAIT_BUNDLE, open_bundle
from engines.bundle import Bundle
from engines.bundle.manifest import first_error
from engines.bundle.provenance import provenance
from engines.contracts import PIPELINES
from engines.errors import EdgeditError
from engines.inspector.subject import graph_report

RESULTS = Path(__file__).parent / "results"
COUNTS = RESULTS / "guard.json"
LATENCY = RESULTS / "latency-portrait.json"
COMMAND = "python -m bench.guard"

_BUDGET = Budget(passes=12, seconds=60, least=3, starts=0)
"""A run is to take two minutes on idle cores, counts included; three rounds are made however long they take."""


class Size(BaseModel):
    """The size of a graph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: int
    """Elements of its floating-point weights."""
    macs: int
    """Multiply-accumulates for one image."""
    nodes: int
    """Nodes of the ONNX graph as it is stored."""


class Announced(BaseModel):
    """The file of counts."""

    graphs: dict[str, Size]


def sizes(bundle: Bundle) -> dict[str, Size]:
    """Sizes of all graphs of a bundle, by name."""
    return {graph: _size(bundle, graph) for graph in sorted(bundle.manifest.graphs)}


def _size(bundle: Bundle, graph: str) -> Size:
    # The weights are external: their shapes alone are read here.
    stored = onnx.load_from_string(bundle.read(bundle.graph(graph).file)).graph
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    weights = [tensor.dims for tensor in stored.initializer if tensor.data_type in floating]
    return Size(
        parameters=sum(map(math.prod, weights)),
        macs=graph_report(bundle, graph).macs,
        nodes=len(stored.node),
    )


def grown(now: dict[str, Size], announced: dict[str, Size]) -> list[str]:
    """The figures that are higher now than was announced, in lines; a graph that is new has grown too."""
    lines = []
    for graph, size in now.items():
        before = announced.get(graph)
        if before is None:
            lines.append(f"{graph} is new: {size.nodes} nodes")
            continue
        for name, value in size.model_dump().items():
            if value > (old := getattr(before, name)):
                lines.append(f"{graph}: {value:,} {name}, {value - old:,} more than announced")
    return lines


def read_counts(path: Path) -> dict[str, Size]:
    """The sizes that were announced.

    Raises:
        EdgeditError: if there is no such file, or it is not one.
    """
    try:
        return Announced.model_validate_json(path.read_bytes()).graphs
    except OSError as error:
        raise EdgeditError(f"cannot read {path}: {error.strerror or error}; {COMMAND} --update writes it") from None
    except ValidationError as error:
        raise EdgeditError(f"{path} holds no counts: {first_error(error)}; {COMMAND} --update writes it") from None


def check(bundle: Bundle, counts: Path, update: bool = False) -> None:
    """Holds the sizes of a bundle's graphs against those in a file, or announces them there.

    Raises:
        EdgeditError: if something has grown, naming all of it.
    """
    now = sizes(bundle)
    if update:
        document = provenance(f"{COMMAND} --update") | {
            "bundle": bundle.name,
            "graphs": {graph: size.model_dump() for graph, size in now.items()},
        }
        save(counts, document)
        say(f"{counts.name}: {len(now)} graphs announced")
        return
    announced = read_counts(counts)
    if lines := grown(now, announced):
        raise EdgeditError(f"{bundle.name} has grown: {'; '.join(lines)}: {COMMAND} --update announces it")
    smaller = [graph for graph in announced if now.get(graph) != announced[graph]]
    advice = f"; smaller than announced, --update says so: {', '.join(smaller)}" if smaller else ""
    say(f"{bundle.name}: no graph of {len(now)} has grown{advice}")


def speed(bundle: Bundle, committed: Path) -> None:
    """Prints how ratios of this machine stand to the committed ones; whatever they are, that is all."""
    try:
        chosen, missing = candidates(bundle)
        result = measure(bundle, chosen, PIPELINES, (1,), budget=_BUDGET, progress=say)
        result["not_measured"] |= missing
        compared = compare(read(committed), parse(about("cpu", COMMAND) | result, "this run"))
    except EdgeditError as error:
        say(f"no speeds to compare: {error}")
        return
    console.print(table(compared))
    for line in remarks(compared):
        say(line)


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """Refuse that the portrait bundle grows unannounced, and print how fast it is beside what was committed."""

    bundle: Annotated[Path, tyro.conf.arg(help_behavior_hint="(default: the portrait bundle)")] = PORTRAIT_BUNDLE
    """The bundle."""
    counts: Annotated[Path, tyro.conf.arg(help_behavior_hint="(default: the committed file)")] = COUNTS
    """The announced counts."""
    latency: Annotated[Path, tyro.conf.arg(help_behavior_hint="(default: the committed file)")] = LATENCY
    """A file of `edgedit bench latency` to compare with."""
    update: bool = False
    """Announce the counts as they are now; nothing is timed."""
    no_speed: bool = False
    """Time nothing."""


def run(options: GuardOptions) -> None:
    """Compares the counts, or announces them, and then the speeds.

    Raises:
        EdgeditError: if a graph has grown, or a file cannot be used.
    """
    bundle = open_bundle(options.bundle)
    check(bundle, options.counts, options.update)
    if not (options.update or options.no_speed):
        speed(bundle, options.latency)


def main() -> None:
    """Runs the command line."""
    program(run, GuardOptions, "bench.guard")


if __name__ == "__main__":
    main()
