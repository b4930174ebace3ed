"""The content of `edgedit demo`: the photo that comes with the package, and edits along a bundle's attributes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from edgedit.editor import Editor
from edgedit.sheet import contact_sheet
from engines.directions import Direction, resolve
from engines.packages import Progress
from engines.photo import PasteMode
from engines.photo.images import Source

ASTRONAUT = Path(__file__).parent / "assets" / "astronaut.jpg"
ATTRIBUTES = ("smile", "age", "glasses", "yaw", "male")
"""The order in which a sheet shows attributes; others follow."""
PUT_BACK = ATTRIBUTES[:4]
"""The edits that a sheet shows in the whole photo, as far as the bundle has them."""


def demo_sheet(
    editor: Editor,
    photo: Source = ASTRONAUT,
    directions: Sequence[str] = (),
    *,
    aligned: bool = False,
    face: int | None = None,
    mode: PasteMode = "auto",
    progress: Progress = lambda line: None,
) -> tuple[np.ndarray, list[str]]:
    """A contact sheet: a photo, its reconstruction, a row of edits per attribute, and edits put back into it.

    Args:
        editor: of the bundle.
        photo, aligned, face, mode: as of `Editor.edit_photo`.
        directions: to show; none: every attribute direction of the bundle.
        progress: called with one line per step.

    Returns:
        The sheet, uint8 H x W x 3 (see `edgedit.sheet`), and the directions on it.

    Raises:
        ImageError, NoFaceError, DirectionError: as `Editor.edit_photo`.
    """
    names = list(directions) or in_order(n for n, d in editor.directions.items() if d.kind == "interfacegan")
    names = names or list(editor.directions)[:4]
    resolve(editor.directions, {n: _strongest(editor.directions.get(n)) for n in names}, editor.family)
    progress(f"finding and inverting the face in {photo}")
    portrait = editor.portrait(photo, aligned, face=face)
    rows = []
    for name in names:
        strengths = demo_strengths(editor.directions[name])
        progress(f"editing {name}: {', '.join(f'{s:+.3g}' for s in strengths)}")
        faces = [portrait.edit_face({name: s}) for s in strengths]
        rows.append([(f"{name} {s:+.3g}", face) for s, face in zip(strengths, faces, strict=True)])
    best = [name for name in names if name in PUT_BACK] or names[:4]
    progress(f"putting edits back into the photo: {', '.join(best) or 'none'}")
    photos = []
    for name in best:
        strength = _strongest(editor.directions[name])
        photos.append((f"{name} {strength:+.3g}, in the photo", portrait.edit({name: strength}, mode=mode)))
    return contact_sheet(portrait, rows, photos), names


def in_order(names: Iterable[str]) -> list[str]:
    """Attributes as a sheet shows them: those of `ATTRIBUTES`, then others."""
    return sorted(names, key=lambda name: ATTRIBUTES.index(name) if name in ATTRIBUTES else len(ATTRIBUTES))


def demo_strengths(direction: Direction) -> list[float]:
    """Four rising strengths of a direction's usable range, none of them 0: both ends and half of each, or quarters."""
    low, high = direction.min_strength, direction.max_strength
    if low < 0 < high:
        return [low, low / 2, high / 2, high]
    return [s for s in np.linspace(low, high, 5).tolist() if s][-4:]


def _strongest(direction: Direction | None) -> float:
    """The end that a direction's name promises; the other one of a direction that has no such end."""
    return 0.0 if direction is None else direction.max_strength or direction.min_strength
