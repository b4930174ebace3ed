"""The tables for the terminal: what an engine is, what its precision comes to, and its costliest layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engines.inspector.compare import Comparison
from engines.inspector.figures import clean, percent, si
from engines.inspector.subject import Subject
from engines.inspector.tables import Column, layer_table, pair_table

_NAME = 48
_REASONS = 8
_WORDS = ("words", "name", "operator", "precision", "precisionA", "precisionB")
_BUILT = ("built with", "compute capability", "compatibility", "batch", "device memory")


def print_subject(console: Console, subject: Subject, top: int) -> None:
    """Prints one report with its `top` costliest layers."""
    figures, facts, wide = subject.figures, subject.facts, list(subject.wide.items())
    _line(console, f"{subject.graph}: {subject.title}")
    if subject.engine is not None:
        _line(console, "; ".join(f"{name}: {facts[name]}" for name in _BUILT if name in facts))
    _line(console, "; ".join(f"{name}: {value}" for name, value in subject.summary.items()))
    parts = figures.by_precision
    columns = [
        Column("precision", "precision", list(parts)),
        Column("layers", "layers", [len(part.layers) for part in parts.values()]),
        Column("macs", "MACs", [part.macs for part in parts.values()], si),
        Column("share", "share", [figures.share(label) for label in parts], percent),
        Column("weights", "weights", [si(part.weight_bytes, "B") for part in parts.values()]),
        Column("activations", "activations", [si(part.activation_bytes, "B") for part in parts.values()]),
    ]
    _table(console, columns)
    for reason, layers in wide[:_REASONS]:
        macs = sum(layer.macs for layer in layers)
        share = f", {percent(macs / figures.macs)} of MACs" if macs else ""
        _line(console, f"{subject.wide_label(layers)} {len(layers)}x{share}: {reason}")
    if len(wide) > _REASONS:
        _line(console, f"and {len(wide) - _REASONS} more reasons: see --html or --json")
    if (certificate := subject.certificate) is not None:
        _line(console, "certificate: " + "; ".join(f"{name} {value}".strip() for name, value in certificate.items()))
    elif subject.engine is not None:
        _line(console, "certificate: accuracy was not measured")
    if top:
        by = "measured time" if figures.timed.layers else "floor" if subject.device is not None else "MACs"
        costliest = layer_table(subject, subject.costliest(top))
        shown = costliest.some("n", "name", "operator", "precision", "macs", "floor", "ms")
        _table(console, shown, f"the {len(costliest.rows)} costliest layers by {by}")
    others = [name for name in subject.graphs if name != subject.graph]
    if others:
        _line(console, f"other graphs here: {', '.join(others)} (--graph NAME)")


def print_comparison(console: Console, comparison: Comparison, top: int) -> None:
    """Prints two reports side by side, with the `top` costliest matched layers whose precision differs."""
    for letter, subject in (("A", comparison.a), ("B", comparison.b)):
        _line(console, f"{letter}: {subject.graph}: {subject.title}")
    labels, rows = ("", "A", "B", "B / A"), [(name, *cells) for name, cells, _ in comparison.totals]
    _table(
        console, [Column("words", label, words) for label, words in zip(labels, zip(*rows, strict=True), strict=True)]
    )
    _line(console, comparison.words)
    if not top:
        return
    pairs = comparison.pairs
    differing = sorted(
        (i for i, pair in enumerate(pairs) if pair.status == "precision"), key=lambda i: -comparison.cost(pairs[i])
    )
    if differing:
        table = pair_table(comparison, differing[:top])
        shown = table.some("name", "precisionA", "precisionB", "macsA", "macsB", "msA", "msB", "ratio")
        _table(console, shown, f"the {len(table.rows)} costliest layers whose precision differs")
    for status in ("only A", "only B"):
        layers = [layer for pair in comparison.only(status) for side in pair.sides for layer in side.layers]
        if layers:
            names = ", ".join(clean(layer.name, _NAME) for layer in layers[:5])
            _line(console, f"{status.replace('only', 'only in')}: {names}{_more(len(layers) - 5)}")


def _more(count: int) -> str:
    return f", and {count} more" if count > 0 else ""


def _line(console: Console, words: str) -> None:
    console.print(_text(console, words))


def _text(console: Console, words: str) -> Text:
    """Text without markup that the terminal's encoding can show."""
    return Text(words.encode(console.encoding, "replace").decode(console.encoding))


def _table(console: Console, columns: Sequence[Column], title: str | None = None) -> None:
    """Prints columns of words and of figures; the names of layers give way where the terminal is narrow."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        words = column.key in _WORDS
        least = None if column.key == "name" else max(len(column.label), *map(len, column.cells))
        table.add_column(
            column.label,
            justify="left" if words else "right",
            no_wrap=True,
            overflow="ellipsis",
            min_width=least,
        )
    for cells in zip(*(_cells(console, column) for column in columns), strict=True):
        table.add_row(*(_text(console, cell) for cell in cells))
    console.print(table)


def _cells(console: Console, column: Column) -> Iterable[str]:
    """The cells; of a layer's name the end, which says more than its beginning."""
    if column.key != "name":
        return column.cells
    room = max(20, min(_NAME, console.width - 60))
    return [cell if len(cell) <= room else f"..{cell[2 - room :]}" for cell in column.cells]
