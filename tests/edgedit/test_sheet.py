from __future__ import annotations

import numpy as np
import pytest

from edgedit.editor import Editor, Portrait
from edgedit.sheet import CELL, FRAME, GAP, LABEL, LARGE, PAPER, WIDTH, contact_sheet


def grey(level: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    y, x = GAP + row * (CELL + LABEL + GAP), GAP + column * (CELL + GAP)
    return sheet[y : y + CELL, x : x + CELL]


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize(("edits", "photos"), [(1, 0), (4, 1), (2, 4)])
def test_size_and_places(portrait: Portrait, rows: int, edits: int, photos: int) -> None:
    shown = [[(f"d{row} {i:+d}", grey(20 * row + 10 * i)) for i in range(edits)] for row in range(rows)]
    sheet = contact_sheet(portrait, shown, [(f"p{i}", grey(200 + i)) for i in range(photos)])
    top = GAP + (rows + 1) * (CELL + LABEL + GAP)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (top + (photos + 1) // 2 * (LARGE + LABEL + GAP), WIDTH, 3)
    for row in range(rows):
        for i in range(edits):
            assert (cell(sheet, row + 1, i) == 20 * row + 10 * i).all()
    for i in range(photos):
        y, x = top + i // 2 * (LARGE + LABEL + GAP), GAP + i % 2 * (LARGE + GAP)
        assert (sheet[y : y + LARGE, x : x + LARGE] == 200 + i).all()
    assert (sheet[:GAP] == PAPER).all() and (sheet[:, :GAP] == PAPER).all() and (sheet[:, -GAP:] == PAPER).all()


def test_faces_are_of_a_readable_size() -> None:
    assert CELL >= 320 and LARGE >= 2 * CELL


def test_first_row_shows_photo_face_and_reconstruction(portrait: Portrait) -> None:
    sheet = contact_sheet(portrait, [], [])
    framed = (np.abs(cell(sheet, 0, 0).astype(int) - FRAME).sum(axis=2) < 60).sum()
    assert framed > 100
    for column, image in ((1, portrait.aligned), (2, portrait.reconstruction)):
        shown = cell(sheet, 0, column).reshape(-1, 3).mean(axis=0)
        assert np.abs(shown - image.reshape(-1, 3).mean(axis=0)).max() < 2


def test_every_cell_has_a_label(portrait: Portrait) -> None:
    edits = [(f"smile {strength}", grey(0)) for strength in ("-1", "-0.5", "+0.5")]
    sheet = contact_sheet(portrait, [edits], [])
    for row in range(2):
        for column in range(3):
            y, x = GAP + row * (CELL + LABEL + GAP) + CELL, GAP + column * (CELL + GAP)
            strip = sheet[y : y + LABEL, x : x + CELL + GAP]
            assert (strip.min(axis=2) < 120).sum() > 20
            # Long enough a text to run into its neighbour's would leave no gap.
            assert (strip[:, -4:] == PAPER).all(), (row, column)


def test_wide_photos_are_fitted_in(editor: Editor, portrait: Portrait) -> None:
    given = editor.portrait(portrait.aligned, aligned=True)
    wide = cell(contact_sheet(given, [[("smile +1", grey(0, 40, 160))]], []), 1, 0)
    quarter = CELL * 3 // 8
    assert (wide[quarter : CELL - quarter] == 0).all()
    assert (wide[:quarter] == PAPER).all() and (wide[CELL - quarter :] == PAPER).all()
