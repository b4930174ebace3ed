"""Time and memory of one edit of one image, for every method of Table 5 in one run.

All methods are in memory at once and take turns: every round takes each of them once, in an order that is drawn anew,
so that clocks, heat and other programs meet all alike. A pass is inversion and edit, one behind the other, with the
time taken between; weights and images are random. Every sample is kept.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from bench.machine import free_memory
from bench.table5 import alone
from bench.table5.counts import PAPER, PAPER_DEVICE, complete, row_family
from bench.table5.subjects import How, Setting, Subject, graphs_folder
from bench.timing import Rounds, quartiles, rounds, summary, synchronize
from engines.cpus import threads as allowed
from engines.cpus import usable
from engines.errors import EdgeditError, first_line, suggestion
from training.methods import COMPARED

BASE = "e4e"
"""The method that ratios are given to; it is always measured."""

STAGES = ("invert", "edit")
NO_TIME = "no time was left"

Progress = Callable[[str], None]
"""A function that is told of every step that `steps` counts, in a line."""

T = TypeVar("T")


def chosen(names: Sequence[str]) -> list[str]:
    """Keys of the methods in the table's order, the base among them; all if none is named.

    Raises:
        EdgeditError: for a name that is no method's.
    """
    for name in names:
        if name.lower() not in COMPARED:
            raise EdgeditError(
                f"there is no method {name!r}; {suggestion(name, COMPARED)}there are {', '.join(COMPARED)}"
            )
    wanted = {name.lower() for name in names} | {BASE}
    return [key for key in COMPARED if not names or key in wanted]


def check_fits(keys: Sequence[str], setting: Setting) -> None:
    """Finds out whether the weights of all methods fit the memory that the device has free.

    Raises:
        EdgeditError: if they do not.
    """
    needed = sum(
        4 * complete(key, row_family(key, setting.family)).params for key in keys if _lacks(key, setting) is None
    )
    _check_room(needed, setting.device, "the weights alone")


def _check_room(needed: int, device: str, what: str) -> None:
    free = free_memory(device)
    if needed > free:
        raise EdgeditError(
            f"the methods take turns, so all are in memory at once: {what} {needed / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB are free; end other programs, or name fewer with --method"
        )


def _lacks(key: str, setting: Setting) -> str | None:
    """The reason why a method cannot be measured in this family."""
    try:
        complete(key, row_family(key, setting.family))
    except (RuntimeError, ValueError) as error:
        return first_line(error)
    return None


def steps(keys: Sequence[str], setting: Setting, passes: int, warmup: int, memory: bool) -> int:
    """The number of steps of which `measure` reports progress, if all goes well."""
    here = sum(_lacks(key, setting) is None for key in keys)
    apart = (setting.how == "onnxruntime") + (memory and setting.device == "cpu")
    return here * (apart + 1 + warmup + passes)


def measure(
    keys: Sequence[str],
    setting: Setting,
    *,
    passes: int,
    warmup: int = 1,
    memory: bool = True,
    graphs: Path | None = None,
    left: Callable[[], float] = lambda: math.inf,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Rows of the table, and how they were measured.

    Args:
        keys: methods, each once.
        setting: what they have in common.
        passes: rounds that are timed.
        warmup: rounds before those, 1 or more.
        memory: on the CPU, also measure peak memory, in a process for each method before the rounds.
        graphs: where exported graphs are kept, and found again by the next run; None throws them away.
        left: seconds that are left. A round that would probably take longer is not begun, but for the first.
        progress: told what was done.

    Raises:
        EdgeditError: if no method could be measured, or all together do not fit into memory.
    """
    missing = {key: reason for key in keys if (reason := _lacks(key, setting)) is not None}
    with ExitStack() as stack:
        stack.enter_context(_threads(setting))
        root = graphs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgedit-table5-")))
        run = _Run(setting, {k: graphs_folder(root, k, setting) for k in keys if k not in missing}, left, progress)
        on_host = memory and setting.device == "cpu"
        if setting.how == "onnxruntime":
            run.each("exported", lambda key, folder: alone.exported(key, setting, folder))
        held = run.each("weighed", lambda key, folder: alone.memory(key, setting, folder)) if on_host else {}
        _check_together(held, setting)
        subjects: dict[str, Subject] = run.each("loaded", lambda key, folder: alone.prepare(key, setting, folder))
        used = run.each("warm", lambda key, _: _first(subjects[key], setting))
        missing |= run.missing
        if not run.folders:
            raise EdgeditError(f"no method could be measured: {next(iter(missing.values()))}")
        for _ in range(warmup - 1):
            run.each("warm", lambda key, _: _once(subjects[key]))
        timings = run.rounds(subjects, passes)
        threads = torch.get_num_threads() if setting.how == "eager" else allowed(setting.threads)
    peaks = {key: one.own for key, one in held.items() if one is not None} if on_host else used
    return {
        "family": setting.family.name,
        "how": setting.how,
        "precision": setting.precision,
        "weights": f"random, seed {setting.seed}",
        "threads": threads if setting.device == "cpu" else None,
        "warmup": warmup,
        "passes": len(timings.orders),
        "passes_asked": passes,
        "base": BASE,
        "paper_device": PAPER_DEVICE,
        "memory": alone.WHAT if setting.device == "cpu" else _ON_GPU[setting.how],
        "orders": timings.orders,
        "rows": _rows(timings, setting, peaks),
        "not_measured": missing,
    }


@contextmanager
def _threads(setting: Setting) -> Iterator[None]:
    before = torch.get_num_threads()
    if setting.how == "eager":
        torch.set_num_threads(min(setting.threads or before, usable()))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_together(held: Mapping[str, alone.Memory | None], setting: Setting) -> None:
    """Finds out whether the memory that each takes alone fits all together, with one at its peak."""
    known = [one for one in held.values() if one is not None]
    if known:
        together = sum(one.stays for one in known) + max(one.own - one.stays for one in known)
        _check_room(together, setting.device, "together they take")


def _once(subject: Subject) -> None:
    subject.invert()
    subject.edit()


def _first(subject: Subject, setting: Setting) -> int | None:
    """The first edit; bytes of a GPU that it took at the most, the method's own among them.

    Raises:
        EdgeditError: if its values are not finite.
    """
    counted = setting.how == "eager" and setting.device != "cpu"
    before = 0
    if counted:
        synchronize(setting.device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    _once(subject)
    synchronize(setting.clock)
    if not subject.finite():
        raise EdgeditError("its values are not finite with these random weights; try another --seed")
    if subject.memory is None or not counted:
        return subject.memory
    return subject.memory + torch.cuda.max_memory_allocated() - before


@dataclass
class _Run:
    """The methods that are left, and the reasons why others are not."""

    setting: Setting
    folders: dict[str, Path]
    """Folders of the graphs of the methods; a method that fails is taken out."""
    left: Callable[[], float]
    progress: Progress
    missing: dict[str, str] = field(default_factory=dict)

    def each(self, what: str, call: Callable[[str, Path], T]) -> dict[str, T]:
        """The results of a call for every method."""
        given: dict[str, T] = {}
        for key, folder in list(self.folders.items()):
            try:
                if self.left() <= 0:
                    raise EdgeditError(NO_TIME)
                given[key] = call(key, folder)
            except (EdgeditError, RuntimeError, ValueError, MemoryError) as error:
                self.missing[key] = first_line(error)
                del self.folders[key]
                continue
            self.progress(f"{COMPARED[key].info.title} {what}")
        return given

    def rounds(self, subjects: Mapping[str, Subject], passes: int) -> Rounds:
        """The rounds that are kept; none is begun that would end too late, but for the first."""
        began = time.monotonic()
        longest = 0.0

        def late() -> bool:
            nonlocal began, longest
            now = time.monotonic()
            began, longest = now, max(longest, now - began)
            return self.left() < longest

        return rounds(
            {key: (subjects[key].invert, subjects[key].edit) for key in self.folders},
            count=passes,
            device=self.setting.clock,
            seed=self.setting.seed,
            until=late,
            after=lambda key: self.progress(f"{COMPARED[key].info.title} measured"),
        )


def _rows(timings: Rounds, setting: Setting, peaks: Mapping[str, int | None]) -> list[dict[str, Any]]:
    whole = {key: [sum(stages) for stages in samples] for key, samples in timings.samples.items()}
    return [
        {
            "key": key,
            "method": COMPARED[key].info.title,
            "params_m": (counted := complete(key, row_family(key, setting.family))).params / 1e6,
            "gmacs": counted.macs / 1e9,
            **{name: summary([stages[i] for stages in samples]) for i, name in enumerate(STAGES)},
            "complete": summary(whole[key]),
            **_ratio(whole[key], whole.get(BASE)),
            **published(key),
            "peak_memory_bytes": peaks.get(key),
        }
        for key, samples in timings.samples.items()
    ]


def _ratio(samples: Sequence[float], base: Sequence[float] | None) -> dict[str, Any]:
    """The ratio of medians, and the quartiles of the ratios within rounds, which met the same clocks and heat."""
    if base is None:
        return {"ratio": None, "ratio_quartiles": None}
    pairs = [sample / other for sample, other in zip(samples, base, strict=True)]
    return {"ratio": statistics.median(samples) / statistics.median(base), "ratio_quartiles": list(quartiles(pairs))}


def published(key: str) -> dict[str, float | None]:
    paper = PAPER.get(key)
    return {
        "paper_gmacs": paper.gmacs if paper else None,
        "paper_seconds": paper.seconds if paper else None,
        "paper_ratio": paper.seconds / PAPER[BASE].seconds if paper else None,
    }


_ON_GPU: dict[How, str] = {
    "eager": "PyTorch's allocator: the method's weights, and the most that one edit of one image adds to them",
    "onnxruntime": "what the GPU has less free after the graphs were loaded and did one edit of one image",
}
