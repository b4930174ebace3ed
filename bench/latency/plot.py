"""Figures of a run: ratios, batches, cold starts and memory."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator

from bench.figures import INK, Figure
from bench.latency.result import Result, Row

_BASE = "#7f8790"
_COLOURS = ("#2f7fc1", "#d9730d", "#2f9e6e", "#9b59b6", "#c0392b", "#16a0a0")
"""Colours that are readable on light and dark ground."""
_STAGES = (("start_ms", "interpreter, libraries", 1.0), ("load_ms", "load", 0.65), ("first_ms", "first run", 0.35))


def figures(result: Result) -> Iterator[tuple[str, Figure]]:
    """Captions and figures."""
    if any(row.speedup is not None for row in result.rows):
        yield (
            f"Times faster than {result.base} in the same round; bars end at medians, lines are 95 % intervals",
            _ratios(result),
        )
    if len({row.batch for row in result.rows}) > 1:
        yield "Time for one image by batch size; lines are 95 % intervals", _batches(result)
    if result.starts:
        yield "From the start of a process to the first picture, and the most memory that it held", _starts(result)


def _colours(result: Result) -> dict[str, str]:
    names = dict.fromkeys([*(row.name for row in result.rows), *(start.name for start in result.starts)])
    others = [name for name in names if name != result.base]
    return {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(others)} | {result.base: _BASE}


def _graphs(result: Result) -> dict[str, list[Row]]:
    graphs: dict[str, list[Row]] = {}
    for row in result.rows:
        graphs.setdefault(row.graph, []).append(row)
    return graphs


def _ratios(result: Result) -> Figure:
    graphs, colours = _graphs(result), _colours(result)
    most = max(map(len, graphs.values()))
    figure = Figure(figsize=(3.9 * len(graphs), 0.9 + 0.36 * most), layout="constrained")
    for axis, (graph, rows) in zip(figure.subplots(1, len(graphs), squeeze=False)[0], graphs.items(), strict=True):
        for place, row in enumerate(rows):
            if row.speedup is None:
                continue
            axis.barh(place, row.speedup, color=colours[row.name], height=0.7)
            end = row.speedup
            if row.speedup_interval is not None:
                axis.plot(row.speedup_interval, [place] * 2, color=INK, lw=1.2)
                end = max(end, row.speedup_interval[1])
            axis.annotate(
                f"{row.speedup:.2f}×", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axis.axvline(1, color=_BASE, lw=0.8, ls="--")
        axis.set_yticks(range(len(rows)), [f"{row.name}, batch {row.batch}" for row in rows], fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.18)
        axis.set_xlim(left=0)
        _plain(axis, graph)
    return figure


def _batches(result: Result) -> Figure:
    graphs, colours = _graphs(result), _colours(result)
    figure = Figure(figsize=(3.9 * len(graphs), 3.3), layout="constrained")
    axes = figure.subplots(1, len(graphs), squeeze=False)[0]
    for axis, (graph, rows) in zip(axes, graphs.items(), strict=True):
        batches = sorted({row.batch for row in rows})
        for name in dict.fromkeys(row.name for row in rows):
            own = sorted((row for row in rows if row.name == name), key=lambda row: row.batch)
            x, y = [row.batch for row in own], [row.median_ms / row.batch for row in own]
            axis.plot(x, y, color=colours[name], marker="o", markersize=4, label=name)
            for row in own:
                if row.interval_ms is not None:
                    axis.plot(
                        [row.batch] * 2, [end / row.batch for end in row.interval_ms], color=colours[name], lw=1.2
                    )
        axis.set_xscale("log", base=2)
        axis.set_xticks(batches, [str(batch) for batch in batches])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_ylim(bottom=0)
        axis.set_xlabel("batch size")
        _plain(axis, graph)
    axes[0].set_ylabel("ms for one image")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _starts(result: Result) -> Figure:
    colours, starts = _colours(result), result.starts
    figure = Figure(figsize=(11, 1.6 + 0.4 * len(starts)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for place, start in enumerate(starts):
        begin = 0.0
        for stage, _, alpha in _STAGES:
            seconds = getattr(start, stage).median_ms / 1e3
            left.barh(place, seconds, left=begin, color=colours[start.name], alpha=alpha, height=0.7)
            begin += seconds
        left.annotate(f"{begin:.2f} s", (begin, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
        if start.peak_bytes:
            gib = start.peak_bytes / 2**30
            right.barh(place, gib, color=colours[start.name], height=0.7)
            right.annotate(f"{gib:.2f}", (gib, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    left.set_yticks(range(len(starts)), [start.name for start in starts], fontsize=8)
    left.invert_yaxis()
    for axis, label in ((left, f"s, from the left: {', '.join(name for _, name, _ in _STAGES)}"), (right, "GiB")):
        axis.margins(x=0.15)
        axis.set_xlabel(label, fontsize=8)
        _plain(axis, "cold start" if axis is left else "peak memory")
    return figure


def _plain(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.grid(axis="x" if axis.yaxis_inverted() else "y", alpha=0.25)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
