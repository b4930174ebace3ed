"""The contact sheet of `edgedit demo`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgedit.editor import Portrait

COLUMNS = 4
CELL = 320
"""Side of a cell with a face, in pixels; a photo that an edit was put back into has the place of two by two."""
GAP = 10
LABEL = 32
WIDTH = GAP + COLUMNS * (CELL + GAP)
LARGE = 2 * CELL + GAP
INK, PAPER, FRAME = (32, 32, 36), (250, 250, 248), (214, 96, 48)
FONT = 21

Cell = tuple[str, np.ndarray]
"""A label, and what is above it: uint8 H x W x 3."""


def contact_sheet(portrait: Portrait, rows: Sequence[Sequence[Cell]], photos: Sequence[Cell]) -> np.ndarray:
    """Draws the sheet.

    Args:
        portrait: the photo that was edited.
        rows: one per direction, of at most `COLUMNS` edited faces each.
        photos: photos with an edited face put back.

    Returns:
        uint8 H x `WIDTH` x 3: first the photo with the face marked, the face and its reconstruction; then the rows;
        then the photos, two beside each other.
    """
    top = [
        ("photo", _marked(portrait)),
        ("face, as the model sees it", portrait.aligned),
        ("reconstruction", portrait.reconstruction),
    ]
    lines = [(CELL, cells) for cells in (top, *rows)]
    lines += [(LARGE, photos[first : first + 2]) for first in range(0, len(photos), 2)]
    sheet = Image.new("RGB", (WIDTH, GAP + sum(side + LABEL + GAP for side, _ in lines)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=FONT)
    y = GAP
    for side, cells in lines:
        for column, (label, pixels) in enumerate(cells):
            x = GAP + column * (side + GAP)
            sheet.paste(_fitted(pixels, side), (x, y))
            draw.text((x, y + side + 4), label, fill=INK, font=font)
        y += side + LABEL + GAP
    return np.asarray(sheet)


def _fitted(pixels: np.ndarray, side: int) -> Image.Image:
    """A picture in the middle of a square."""
    image = Image.fromarray(pixels)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (side, side), PAPER)
    square.paste(image.resize(size, Image.Resampling.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def _marked(portrait: Portrait) -> np.ndarray:
    image = Image.fromarray(portrait.photo.pixels).copy()
    if portrait.alignment is not None:
        corners = [(float(x), float(y)) for x, y in portrait.alignment.quad]
        width = max(2, max(image.size) // 150)
        ImageDraw.Draw(image).line([*corners, corners[0]], fill=FRAME, width=width, joint="curve")
    return np.asarray(image)
