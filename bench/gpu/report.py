"""The report of a run of the queue: files that `edgedit bench report` reads, its page, and lines of the largest gaps.

The aims are for one H100 at batch 1 in FP16: all stages of an edit, `invert` and `edit` one behind the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.gpu.queue import read
from bench.gpu.rows import BASE
from bench.program import save
from bench.report import page
from engines.store import write

AIMS = {"faces-1024-mobile": 1.0, "faces-1024": 4.0}
"""Milliseconds by family."""
_STAGES = ("invert", "edit")
_TIMED = ("latency", "precisions", "runtimes", "scaling")
_BOUNDARY = (
    "PyTorch by the GPU's events, inputs and outputs on the device; engines by the host's clock, inputs and outputs on "
    "the device; slider by the host's clock, from a new strength on the host to the picture on the host"
)

Rows = list[dict[str, Any]]


def report(out: Path) -> list[str]:
    """Writes `latency-<model>-<device>.json` for every model and device in the results, and `report.html` of them.

    Returns:
        Lines: the fastest row of every graph beside its floor, the largest gap to a floor, and the aims.
    """
    files, lines = [], []
    for (model, device), made in sorted(_collected(out).items()):
        file = out / f"latency-{_slug(model)}-{_slug(device)}.json"
        save(file, made, allow_nan=False)
        files.append(file)
        lines += [f"{model} on {device}:", *(f"  {line}" for line in said(made["bundle"]["family"], made["rows"]))]
    if files:
        write(out / "report.html", page(files, "python -m bench.gpu"))
    return lines


def _collected(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """All rows of all jobs in one result of `bench.latency`, by model and device."""
    results: dict[tuple[str, str], dict[str, Any]] = {}
    for job in _TIMED:
        result = read(out / f"{job}.json")
        if result is None:
            continue
        for step in (step for step in result["rows"] if step.get("rows")):
            about = result["runs"][step["run"]]
            key = (step["model"], about["device"]["name"])
            made = results.setdefault(key, _result(step, about))
            # The base is timed by more than one job; the first of them has it beside the most rows.
            there = {(row["graph"], row["batch"], row["runtime"], row["precision"]) for row in made["rows"]}
            made["rows"] += [
                row
                for row in step["rows"]
                if (row["graph"], row["batch"], row["runtime"], row["precision"]) not in there
            ]
            made["not_measured"] |= {f"{step['step']}, {name}": why for name, why in step["not_measured"].items()}
    return results


def _result(step: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: about[name] for name in ("command", "date", "device", "versions", "host")},
        "bundle": {"name": step["model"], "family": step["family"], "weights": step["weights"]},
        "threads": 0,
        "base": BASE,
        "boundary": _BOUNDARY,
        "start_boundary": "not measured",
        "ceilings": [about["ceilings"]],
        "rows": [],
        "starts": [],
        "not_measured": {},
    }


def said(family: str, rows: Rows) -> Iterator[str]:
    """Lines of one model on one device: the fastest rows, the largest gap, and the aim beside what was reached."""
    fastest = {}
    for row in rows:
        if row["batch"] == 1:
            best = fastest.get(row["graph"])
            if best is None or row["median_ms"] < best["median_ms"]:
                fastest[row["graph"]] = row
    for row in fastest.values():
        yield f"{_text(row)}, the fastest"
    if furthest := gap(rows):
        above = furthest["median_ms"] - furthest["floor_ms"]
        yield f"largest gap to the floor: {_text(furthest)}: {above:.3g} ms above it"
    if family in AIMS:
        yield aim(family, rows)


def gap(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row that is most milliseconds above its floor, of the fastest of each graph and precision at batch 1: what is
    slow where something faster stands beside it is nobody's loss."""
    best: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        key = (row["graph"], row["precision"])
        if row["batch"] == 1 and row.get("floor_ms") is not None:
            if key not in best or row["median_ms"] < best[key]["median_ms"]:
                best[key] = row
    lowered = [row for row in best.values() if row["precision"] not in ("fp32", "tf32")] or list(best.values())
    return max(lowered, key=lambda row: row["median_ms"] - row["floor_ms"], default=None)


def aim(family: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """A line that holds the time of all stages of an edit, in the FP16 row where they take least, against the aim."""
    times: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["batch"] == 1 and row["precision"] == "fp16" and row["graph"] in _STAGES:
            times.setdefault(row["runtime"], {})[row["graph"]] = row["median_ms"]
    whole = {name: sum(own.values()) for name, own in times.items() if len(own) == len(_STAGES)}
    wanted = f"aim of {AIMS[family]:g} ms for {' and '.join(_STAGES)} in FP16 at batch 1 on an H100"
    if not whole:
        return f"{wanted}: not measured"
    name = min(whole, key=lambda runtime: whole[runtime])
    return f"{wanted}: {'met' if whole[name] <= AIMS[family] else 'missed'}, {whole[name]:.3g} ms ({name})"


def _text(row: Mapping[str, Any]) -> str:
    text = f"{row['graph']}, batch {row['batch']}: {row['runtime']}:{row['precision']} {row['median_ms']:.3g} ms"
    if row.get("floor_ms") is None:
        return f"{text}, no floor measured"
    return f"{text}, {row['times_floor']:.2f} times its floor of {row['floor_ms']:.3g} ms ({row['bound']})"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
