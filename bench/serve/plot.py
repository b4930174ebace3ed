"""Latency and throughput over concurrency, one column per model."""

from __future__ import annotations

from typing import Any

from bench.figures import INK, Figure
from bench.serve.statistics import IN_PROCESS

_COLOURS = {IN_PROCESS: INK, "grpc": "#1f77b4", "http": "#d95f02", "shm": "#1b9e77"}
_NAMES = {"grpc": "gRPC", "http": "HTTP", "shm": "gRPC, shared memory"}


def figure(result: dict[str, Any]) -> Figure:
    """Latency above throughput, from what `bench.serve.run` gives."""
    rows = result["rows"]
    models = list(dict.fromkeys(row["model"] for row in rows if row["way"] != IN_PROCESS))
    made = Figure(figsize=(5.5 * len(models), 8), layout="constrained")
    axes = made.subplots(2, len(models), squeeze=False, sharex=True, sharey="row")
    for column, model in enumerate(models):
        for upper, name, label in (
            (0, "p50_ms", "latency, ms (median, up to p95)"),
            (1, "images_per_second", "throughput, images/s"),
        ):
            axis = axes[upper][column]
            for (way, batching), line in _lines(rows, model).items():
                dashes = "-" if batching == "on" else "--"
                x = [one["concurrency"] for one in line]
                y = [one[name] for one in line]
                axis.plot(x, y, dashes, color=_COLOURS[way], marker="o", markersize=3, label=_label(way, batching))
                if name == "p50_ms":
                    axis.fill_between(x, y, [one["p95_ms"] for one in line], color=_COLOURS[way], alpha=0.06, lw=0)
            axis.set_xscale("log", base=2)
            axis.set_xticks(sorted({row["concurrency"] for row in rows}))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.grid(alpha=0.25)
            if column == 0:
                axis.set_ylabel(label)
        axes[0][column].set_yscale("log")
        axes[0][column].yaxis.set_major_formatter("{x:g}")
        axes[1][column].set_ylim(bottom=0)
        axes[1][column].set_xlabel("callers at a time")
        axes[0][column].set_title(f"{model}, {result['bundle']}")
    handles, labels = axes[0][0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=8)
    return made


def _lines(rows: list[dict[str, Any]], model: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["way"] == IN_PROCESS or row["model"] == model:
            lines.setdefault((row["way"], row["batching"]), []).append(row)
    return {key: sorted(line, key=lambda row: row["concurrency"]) for key, line in lines.items()}


def _label(way: str, batching: str) -> str:
    if way == IN_PROCESS:
        return "in process, one caller with batches" if batching == "on" else "in process, a thread each"
    return f"{_NAMES[way]}, batching {batching}"
