"""`python -m bench.table5`: the paper's Table 5 on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from bench.table5 import counts
from engines.errors import EdgeditError


@dataclass(frozen=True, kw_only=True)
class Options(counts.CountsOptions):
    """The paper's Table 5 on this machine."""

    counts: bool = False
    """Count parameters and GMACs; needs neither weights nor a GPU."""


def main() -> None:
    """Runs the command line."""
    options = tyro.cli(Options, prog="python -m bench.table5")
    if not options.counts:
        raise SystemExit("error: nothing to do; say --counts")
    try:
        counts.run(options)
    except EdgeditError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
