"""The contact sheet of `edgedit demo`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgedit.editor import Portrait

CELL = 160
GAP = 8
LABEL = 22
INK, PAPER, FRAME = (32, 32, 36), (250, 250, 248), (214, 96, 48)

Row = tuple[str, Sequence[tuple[str, np.ndarray]], np.ndarray]
"""A direction's name, its labelled edits (aligned faces), and the photo with the strongest one put back."""


def contact_sheet(portrait: Portrait, rows: Sequence[Row]) -> np.ndarray:
    """Draws the sheet.

    Args:
        portrait: the photo that was edited.
        rows: one per direction, all with the same number of edits.

    Returns:
        uint8 H x W x 3: first the photo with the face marked, the aligned face and its reconstruction; then a row of
        edits per direction, with the edited photo at the end.
    """
    columns = max([3, *(len(cells) + 1 for _, cells, _ in rows)])
    width = GAP + columns * (CELL + GAP)
    height = GAP + (1 + len(rows)) * (CELL + LABEL + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    font = ImageFont.load_default(size=13)
    top = [
        ("photo", _marked(portrait)),
        ("face, as the model sees it", portrait.aligned),
        ("reconstruction", portrait.reconstruction),
    ]
    for index, cells in enumerate([top, *([*row[1], (f"{row[0]}, in the photo", row[2])] for row in rows)]):
        y = GAP + index * (CELL + LABEL + GAP)
        for column, (label, pixels) in enumerate(cells):
            x = GAP + column * (CELL + GAP)
            sheet.paste(_cell(pixels), (x, y))
            text = label if index == 0 or column == len(cells) - 1 else f"{rows[index - 1][0]} {label}"
            ImageDraw.Draw(sheet).text((x, y + CELL + 3), text, fill=INK, font=font)
    return np.asarray(sheet)


def _cell(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels)
    scale = CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (CELL, CELL), PAPER)
    cell.paste(small, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def _marked(portrait: Portrait) -> np.ndarray:
    image = Image.fromarray(portrait.photo.pixels).copy()
    if portrait.alignment is not None:
        corners = [(float(x), float(y)) for x, y in portrait.alignment.quad]
        width = max(2, max(image.size) // 150)
        ImageDraw.Draw(image).line([*corners, corners[0]], fill=FRAME, width=width, joint="curve")
    return np.asarray(image)
