"""8-bit engines of a bundle with random weights, for their speed alone.

    edgedit export --random faces-1024 --graph invert edit -o BUNDLE
    python -m bench.uncertified --bundle BUNDLE --graph edit
    edgedit bench latency -b BUNDLE --graph edit --batch 1

Random weights pass no gate of accuracy, but what 8 bits cost does not depend on what they hold. The ranges come from
random inputs, and the engine has no certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bench.latency.inputs import feeds
from bench.program import program, say
from engines.building.build import build
from engines.bundle import Bundle
from engines.bundle.engine_manifest import EIGHT_BIT, Precision, RuntimeName
from engines.errors import EngineError
from engines.precision.calibrate import calibrate


@dataclass(frozen=True, kw_only=True)
class UncertifiedOptions:
    """Build 8-bit engines without a certificate, to time them."""

    bundle: Path
    """A bundle with random weights; the engines go into its engines/."""
    graph: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A graph by name, or pipelines, split, all; may be repeated. None: pipelines."""
    runtime: RuntimeName = "openvino"
    """The runtime of the engines."""
    precision: Precision = "int8"
    """One of 8 bits."""
    target: str | None = None
    """As for `edgedit build`."""


def run(options: UncertifiedOptions) -> None:
    """Builds the engines.

    Raises:
        EngineError: if the bundle's weights are not random, or for a precision of other than 8 bits.
        EdgeditError: as `engines.building.build.build`.
    """
    bundle = Bundle.load(options.bundle, verify=False)
    if options.precision not in EIGHT_BIT:
        raise EngineError(f"--precision {options.precision}: certify it as `edgedit build` does, or name one of 8 bits")
    # Both random exports and the tests' bundle say so.
    if "random" not in bundle.manifest.produced_by.command:
        raise EngineError(f"{bundle.name} has no random weights: edgedit build makes its engines, certified")

    build(
        options.bundle,
        runtime=options.runtime,
        target=options.target,
        precision=options.precision,
        graphs=options.graph or ("pipelines",),
        peaks=lambda graph: calibrate(bundle, graph, [feeds(bundle.graph(graph).inputs, 1, {})], options.precision),
        progress=say,
        command=f"python -m bench.uncertified --precision {options.precision}",
    )


if __name__ == "__main__":
    program(run, UncertifiedOptions, "bench.uncertified")
