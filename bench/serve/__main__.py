"""The command line: `python -m bench.serve --out FILE`."""

from __future__ import annotations

import tyro
from rich.console import Console

from bench.serve.options import ServeBenchOptions
from bench.serve.running import run
from bench.serve.tables import report
from engines.errors import EdgeditError

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Runs the command line."""
    options = tyro.cli(ServeBenchOptions, prog="python -m bench.serve")

    def say(line: str) -> None:
        console.print(line, markup=False)

    try:
        report(run(options, say), say)
    except EdgeditError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
