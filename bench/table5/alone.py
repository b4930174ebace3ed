"""One method in a process of its own: exported there, so that nothing of it stays, and the memory of one edit.

Peak memory on the CPU is that of a process that does nothing else: it makes the method, inverts and edits one image
once, and tells the most it has held since it began and what it held before the method was made. Where several methods
share a process no such figure exists, since memory that one gives back serves the next.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import psutil

from bench.table5.subjects import Eager, Exported, Setting, Subject, write_graphs
from engines.bundle.provenance import peak_bytes
from engines.errors import EdgeditError

P = ParamSpec("P")
T = TypeVar("T")

WHAT = (
    "a process that makes this method alone and does one edit of one image: the most it held, less what it held "
    "before the method was made"
)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a process that runs one method."""

    before: int
    """Python and the libraries."""
    held: int
    """The bytes held after the edit."""
    peak: int

    @property
    def own(self) -> int:
        """The most that the method held itself."""
        return self.peak - self.before

    @property
    def stays(self) -> int:
        """The memory that the method holds between edits."""
        return self.held - self.before


def prepare(key: str, setting: Setting, folder: Path) -> Subject:
    """A method that can be timed; `folder` is where its graphs are, if it runs from graphs.

    Raises:
        EdgeditError: if it cannot be exported.
        ValueError: if it does not exist for the family.
    """
    return Eager(key, setting) if setting.how == "eager" else Exported(folder, setting)


def apart(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Calls a function in a new process; function and arguments can be pickled.

    Raises:
        EdgeditError: if the process ends without an answer; whatever the function raises comes through.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(call, *arguments, **named).result()
        except BrokenProcessPool:
            raise EdgeditError("its process was ended from outside; was there memory enough?") from None


def exported(key: str, setting: Setting, folder: Path) -> None:
    """Writes a method's graphs in a process of its own, see `write_graphs`; those that are there are kept."""
    if not folder.is_dir():
        apart(write_graphs, key, setting, folder)


def memory(key: str, setting: Setting, folder: Path) -> Memory | None:
    """The memory of one edit on the CPU; None where the system does not tell."""
    return apart(_measured, key, setting, folder)


def _measured(key: str, setting: Setting, folder: Path) -> Memory | None:
    process = psutil.Process()
    before = process.memory_info().rss
    subject = prepare(key, setting, folder)
    subject.invert()
    subject.edit()
    held, peak = process.memory_info().rss, peak_bytes()
    return Memory(before=before, held=held, peak=peak) if peak else None
