"""The table for the terminal: what an engine is, what its precision comes to, and its costliest layers."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engines.bundle.layers import Layer
from engines.inspector.compare import Comparison, Side, pair_times, time_label
from engines.inspector.figures import Figures, clean, ms, percent, precision_label, si
from engines.inspector.subject import Subject

_NAME = 48
_REASONS = 8


def print_subject(console: Console, subject: Subject, figures: Figures, top: int) -> None:
    """Prints one report with its `top` costliest layers."""
    _line(console, f"{subject.graph}: {subject.title}")
    facts = subject.facts
    if subject.engine is not None:
        chosen = ("built with", "compute capability", "compatibility", "batch", "device memory")
        _line(console, "; ".join(f"{name}: {facts[name]}" for name in chosen if name in facts))
    _line(console, "; ".join(f"{name}: {value}" for name, value in figures.summary))
    console.print(_precisions(console, figures))
    for reason, layers in list(figures.wide.items())[:_REASONS]:
        macs = sum(layer.macs for layer in layers)
        share = f", {percent(macs / figures.report.macs)} of MACs" if macs else ""
        _line(console, f"{_labels(layers)} {len(layers)}x{share}: {reason}")
    if len(figures.wide) > _REASONS:
        _line(console, f"and {len(figures.wide) - _REASONS} more reasons: see --html or --json")
    if (certificate := subject.certificate) is not None:
        _line(console, "certificate: " + "; ".join(f"{name} {value}".strip() for name, value in certificate.items()))
    elif subject.engine is not None:
        _line(console, "certificate: accuracy was not measured")
    if top:
        console.print(_costliest(console, figures, top))
    others = [name for name in subject.graphs if name != subject.graph]
    if others:
        _line(console, f"other graphs here: {', '.join(others)} (--graph NAME)")


def _line(console: Console, words: str) -> None:
    console.print(_text(console, words))


def _text(console: Console, words: str) -> Text:
    """Text without markup that the terminal's encoding can show."""
    return Text(words.encode(console.encoding, "replace").decode(console.encoding))


def _labels(layers: list[Layer]) -> str:
    return "+".join(dict.fromkeys(precision_label(layer.precision) for layer in layers))


def _table(console: Console, words: list[str], figures: list[str], rows: list[list[str]], title: str = "") -> Table:
    """Columns of words, of which that named "layer" gives way where the terminal is narrow, then columns of figures."""
    table = Table(title=title or None, box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(words):
        widest = max((len(row[index]) for row in rows), default=0)
        table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=None if name == "layer" else widest)
    for index, name in enumerate(figures, len(words)):
        widest = max((len(row[index]) for row in rows), default=0)
        table.add_column(name, justify="right", no_wrap=True, min_width=max(widest, len(name)))
    for row in rows:
        table.add_row(*(_text(console, cell) for cell in row))
    return table


def _precisions(console: Console, figures: Figures) -> Table:
    rows = [
        [t.precision, str(t.layers), si(t.macs), percent(t.share), si(t.weight_bytes, "B"), si(t.activation_bytes, "B")]
        for t in figures.precisions
    ]
    return _table(console, ["precision"], ["layers", "MACs", "share", "weights", "activations"], rows)


def _costliest(console: Console, figures: Figures, top: int) -> Table:
    by = "measured time" if figures.measured else "floor" if figures.device is not None else "MACs"
    layers = sorted(enumerate(figures.report.layers), key=lambda item: -figures.cost(item[1]))[:top]
    rows = []
    for index, layer in layers:
        cells = [str(index), _name(console, layer), clean(layer.operator, 15), precision_label(layer.precision)]
        cells += [si(layer.macs), *([ms(figures.floor(layer))] if figures.device else [])]
        rows.append(cells + ([ms(layer.milliseconds)] if figures.measured else []))
    names = ["MACs", *(["floor ms"] if figures.device else []), *(["ms"] if figures.measured else [])]
    title = f"the {len(layers)} costliest layers by {by}"
    return _table(console, ["#", "layer", "operator", "type"], names, rows, title)


def _name(console: Console, layer: Layer, taken: int = 60) -> str:
    """A name for a table whose other columns take so many characters; its end says more than its beginning."""
    room = max(20, min(_NAME, console.width - taken))
    name = clean(layer.name)
    return name if len(name) <= room else f"..{name[2 - room :]}"


def print_comparison(
    console: Console,
    subjects: tuple[Subject, Subject],
    figures: tuple[Figures, Figures],
    comparison: Comparison,
    top: int,
) -> None:
    """Prints two reports side by side, with the `top` costliest matched layers whose precision differs."""
    a, _ = figures
    for letter, subject in zip("AB", subjects, strict=True):
        _line(console, f"{letter}: {subject.graph}: {subject.title}")
    rows = [dict(f.summary) for f in figures]
    names = dict.fromkeys(name for row in rows for name in row)
    console.print(_table(console, ["", "A", "B"], [], [[name, *(row.get(name, "") for row in rows)] for name in names]))
    counts = comparison.counts
    _line(
        console,
        f"{counts['same'] + counts['precision']} matched, {counts['precision']} of them in another precision; "
        f"{counts['only A']} only in A, {counts['only B']} only in B",
    )
    if not top:
        return
    differing = comparison.only("precision")
    costs = {pair: sum(map(a.cost, comparison.side_a(pair).layers)) for pair in differing}
    differing = sorted(differing, key=lambda pair: -costs[pair])[:top]
    if differing:
        _differing(console, figures, [(comparison.side_a(pair), comparison.side_b(pair)) for pair in differing])
    for status, letter in (("only A", "A"), ("only B", "B")):
        layers = [
            x for p in comparison.only(status) for x in (*comparison.side_a(p).layers, *comparison.side_b(p).layers)
        ]
        if layers:
            names = ", ".join(clean(layer.name, _NAME) for layer in layers[:5])
            _line(console, f"only in {letter}: {names}{f', and {len(layers) - 5} more' if len(layers) > 5 else ''}")


def _differing(console: Console, figures: tuple[Figures, Figures], sides: list[tuple[Side, Side]]) -> None:
    label = time_label(*figures)
    rows = []
    for x, y in sides:
        first, *_ = x.layers
        more = f" (+{len(x.layers) - 1})" if len(x.layers) > 1 else ""
        cells = [_name(console, first) + more, x.precision, y.precision, si(x.macs)]
        rows.append(cells + ([ms(t) for t in pair_times(x, y, *figures)] if label else []))
    names = ["A MACs", *([f"A {label}", f"B {label}"] if label else [])]
    title = f"the {len(sides)} costliest layers whose precision differs"
    console.print(_table(console, ["layer", "A", "B"], names, rows, title))
