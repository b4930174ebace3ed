"""A run that times the methods of Table 5, from its options to its table and plot."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.machine import about
from bench.table5 import times
from bench.table5.options import TimeOptions
from bench.table5.report import report
from bench.table5.subjects import Setting
from engines.errors import OutputError
from engines.family import family
from engines.store import check_output


def run(
    options: TimeOptions,
    command: str,
    console: Console,
    progressing: Callable[[int], AbstractContextManager[times.Progress]],
) -> dict[str, Any]:
    """Times the methods in turns, prints the table, and draws it if a plot is wanted.

    Args:
        options: how.
        command: what repeats the run.
        console: where the table is printed.
        progressing: a context that shows how far so many steps are.

    Returns:
        The result; its `error` says why the plot could not be written, since the figures are worth more than that.

    Raises:
        EdgeditError: for options that will not do, before any work, or if nothing could be measured.
        RuntimeUnavailableError: if the device, or matplotlib for the plot, is not there.
    """
    options.check()
    deadline = time.monotonic() + options.minutes * 60
    keys = times.chosen(options.method)
    setting = Setting(
        family=family(options.family),
        how=options.how,
        device=options.device,
        precision="tf32" if options.tf32 else options.precision,
        threads=options.threads,
        seed=options.seed,
    )
    setting.check()
    draw = _drawing(options.plot)
    if options.keep_graphs is not None:
        options.keep_graphs.mkdir(exist_ok=True)
        check_output(options.keep_graphs / "graphs")
    times.check_fits(keys, setting)
    origin = about(options.device, command)
    memory = not options.no_memory
    with progressing(times.steps(keys, setting, options.passes, options.warmup, memory)) as progress:
        result = origin | times.measure(
            keys,
            setting,
            passes=options.passes,
            warmup=options.warmup,
            memory=memory,
            graphs=options.keep_graphs,
            left=lambda: deadline - time.monotonic(),
            progress=progress,
        )
    report(result, console)
    try:
        draw(result)
    except OutputError as error:
        result["error"] = str(error)
    return result


def _drawing(path: Path | None) -> Callable[[dict[str, Any]], None]:
    """The function that draws a result; that matplotlib is missing, or the file cannot be written, is said here."""
    if path is None:
        return lambda result: None
    from bench.figures import KINDS
    from bench.table5.plot import draw

    check_output(path, KINDS)
    return lambda result: draw(result, path)
