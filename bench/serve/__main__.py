"""The command line: `python -m bench.serve --out FILE`."""

from __future__ import annotations

from bench.program import console, program, say
from bench.serve.options import ServeBenchOptions
from bench.serve.running import run
from bench.serve.tables import report

if __name__ == "__main__":
    program(lambda options: report(run(options, say), console), ServeBenchOptions, "bench.serve")
