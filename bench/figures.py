"""Figures of measurements, the same file from the same result. Needs matplotlib, the extra `bench`."""

from __future__ import annotations

import io
import re
from pathlib import Path

from engines.errors import RuntimeUnavailableError
from engines.store import write

try:
    import matplotlib
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise RuntimeUnavailableError(f"a plot needs {error.name}: pip install 'edgedit[bench]'") from error

__all__ = ["INK", "KINDS", "Figure", "inline", "save"]

KINDS = (".svg", ".png")
"""The suffixes of a figure's file."""

INK = "#000000"
"""The colour that `inline` turns into that of the text around a figure; a file keeps it."""


def save(figure: Figure, path: Path) -> None:
    """Writes an SVG, whose text stays text, or a PNG file.

    Raises:
        OutputError: if it cannot be written.
    """
    write(path, _drawn(figure, path.suffix.lower().lstrip("."), "edgedit"))


def inline(figure: Figure, name: str) -> str:
    """A figure as an SVG element for an HTML page: without ground, in the page's ink, as wide as there is room.

    Args:
        figure: without legends that have a frame; it is changed.
        name: of the figure, unlike any other on the page: identifiers inside it begin with it.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    text = _drawn(figure, "svg", name).decode()
    element = text[text.index("<svg") :]
    element = re.sub(
        r'(<svg[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', r'\1 style="max-width: \2pt" role="img"', element
    )
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'(\bid="|"#|url\(#)', rf"\1{name}-", element)
    return element.replace(INK, "currentColor").replace("<text ", '<text fill="currentColor" ')


def _drawn(figure: Figure, kind: str, salt: str) -> bytes:
    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(drawn, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return drawn.getvalue()
