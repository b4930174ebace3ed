"""Figures of measurements, the same file from the same result. Needs matplotlib, the extra `bench`."""

from __future__ import annotations

import io
from pathlib import Path

from engines.errors import RuntimeUnavailableError
from engines.store import write

try:
    import matplotlib
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise RuntimeUnavailableError(f"a plot needs {error.name}: pip install 'edgedit[bench]'") from error

__all__ = ["KINDS", "Figure", "save"]

KINDS = (".svg", ".png")
"""What a figure's file may end in."""


def save(figure: Figure, path: Path) -> None:
    """Writes an SVG, whose text stays text, or a PNG file.

    Raises:
        OutputError: if it cannot be written.
    """
    drawn = io.BytesIO()
    kind = path.suffix.lower().lstrip(".")
    with matplotlib.rc_context({"svg.hashsalt": "edgedit", "svg.fonttype": "none"}):
        figure.savefig(drawn, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    write(path, drawn.getvalue())
