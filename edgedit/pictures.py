"""The work of the verbs edit, reconstruct and demo, from plain arguments: from a photo's file to a picture's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from edgedit.demo import demo_sheet, demo_strengths
from edgedit.editor import Editor
from engines.directions import parse_edits, resolve
from engines.directions.direction import SUFFIX
from engines.errors import DirectionError
from engines.packages import Progress
from engines.photo import PasteMode, Photo, open_image
from engines.photo.credentials import Credentials, Edits
from engines.photo.mark import MARK, mark_picture

MarkKind = Literal["edited", "names"]

_PUBLISHED = (".pt", ".pth", ".npy", ".npz", ".pkl", ".pickle", ".ckpt", ".txt", ".csv")
"""The endings of the names of others' direction files."""

_FORM = re.compile(r"(?P<name>.+?)\s*(?P<sign>[:= ])\s*(?P<strength>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
"""A name and its strength, also with another sign in between than the right one."""


@dataclass(frozen=True)
class Picture:
    """A picture that was written."""

    width: int
    height: int
    form: str
    """The form in which it says that it was edited: "c2pa", "xmp" or "none"."""
    words: str
    """The same in words."""
    edits: Edits
    psnr_db: float | None = None
    """The PSNR of a reconstruction against the aligned face."""


@dataclass(frozen=True)
class Output:
    """The place of a picture, and what it says of how it was made."""

    path: Path
    credentials: Credentials | bool
    """The credentials, as of `Editor.save`."""
    mark: MarkKind | None = None
    """The mark in its corner: nothing, the word, or the names of the edits too."""

    def write(
        self, editor: Editor, pixels: np.ndarray, edits: Edits, photo: Photo, alpha: np.ndarray | None = None
    ) -> Picture:
        """Writes it; arguments and errors as `Editor.save`."""
        if self.mark is not None:
            pixels = mark_picture(pixels, f"{MARK}: {', '.join(edits)}" if edits and self.mark == "names" else MARK)
        editor.save(self.path, pixels, edits, photo=photo, alpha=alpha, credentials=self.credentials)
        how = ("none", "nothing that says it was edited")
        if isinstance(self.credentials, Credentials):
            how = (self.credentials.form, self.credentials.words)
        return Picture(pixels.shape[1], pixels.shape[0], *how, edits)


def edit_file(
    editor: Editor,
    photo: Path,
    edits: Mapping[str, float],
    out: Output,
    *,
    aligned: bool = False,
    face: int | None = None,
    clamp: bool = False,
    mode: PasteMode = "auto",
) -> Picture:
    """Edits the face of a photo and writes the whole.

    Args:
        editor: of the bundle; directions that are files are added to it.
        photo, aligned, face, clamp, mode: as of `Editor.edit_photo`.
        edits: strength by direction, or by file of one.
        out: where to.

    Raises:
        ImageError, NoFaceError, DirectionError: as `Editor.edit_photo`.
        OutputError, CredentialsError: if it cannot be written or signed.
    """
    added = {name: editor.add_direction(name).name for name in edits if name.endswith(SUFFIX)}
    if len({added.get(name, name) for name in edits}) < len(edits):
        raise DirectionError("two of these directions have the same name; give one strength for it")
    edits = {added.get(name, name): strength for name, strength in edits.items()}
    # Also before the inversion, which may take long: a name may be misspelt.
    resolve(editor.directions, edits, editor.family, clamp)
    portrait = editor.portrait(photo, aligned, face=face)
    pixels = portrait.edit(edits, clamp=clamp, mode=mode)
    return out.write(editor, pixels, edits, portrait.photo, portrait.alpha)


def reconstruct_file(
    editor: Editor,
    photo: Path,
    out: Output,
    *,
    aligned: bool = False,
    face: int | None = None,
    mode: PasteMode = "auto",
) -> Picture:
    """Writes a photo with its face as the model renders it; arguments and errors as `edit_file`."""
    portrait = editor.portrait(photo, aligned, face=face)
    written = out.write(editor, portrait.reconstruct(mode=mode), {}, portrait.photo, portrait.alpha)
    error = np.square(portrait.reconstruction.astype(np.float64) - portrait.aligned).mean()
    psnr = float(10 * np.log10(255**2 / max(error, 1e-9)))
    return replace(written, psnr_db=psnr)


def demo_file(
    editor: Editor,
    photo: Path,
    directions: Sequence[str],
    out: Output,
    *,
    aligned: bool = False,
    face: int | None = None,
    mode: PasteMode = "auto",
    progress: Progress = lambda line: None,
) -> Picture:
    """Writes a contact sheet; `directions` and `progress` as of `edgedit.demo.demo_sheet`, all else as `edit_file`."""
    source = open_image(photo)
    options = {"aligned": aligned, "face": face, "mode": mode}
    sheet, names = demo_sheet(editor, photo, directions, **options, progress=progress)
    edits = {name: demo_strengths(editor.directions[name]) for name in names}
    return out.write(editor, sheet, edits, source)


def edits_of(items: Sequence[str], strength: float | None = None) -> dict[str, float]:
    """Strength by direction, of what follows `--direction`.

    Args:
        items: each NAME:STRENGTH, or NAME.
        strength: of those that are NAME.

    Raises:
        DirectionError: if there is none, one has no strength, or `strength` no direction.
    """
    if not items:
        raise DirectionError("nothing to edit: give --direction NAME:STRENGTH (`edgedit directions` lists names)")
    for item in items:
        _check_form(item)
    bare = [item for item in items if ":" not in item]
    if bare and strength is None:
        raise DirectionError(f"direction {bare[0]!r} has no strength: write {bare[0]}:1.5 or add --strength 1.5")
    if strength is not None and not bare:
        raise DirectionError("--strength is for directions without one of their own, and all have one: leave it out")
    return parse_edits(item if ":" in item else f"{item}:{strength}" for item in items)


def _check_form(item: str) -> None:
    """
    Raises:
        DirectionError: if it is NAME=STRENGTH or NAME STRENGTH, or names a file that is not one of edgedit's.
    """
    match = _FORM.fullmatch(item.strip())
    name = match["name"] if match else item.strip()
    file = Path(name)
    if file.suffix.lower() in _PUBLISHED or (file.suffix.lower() != SUFFIX and "/" in name and file.is_file()):
        raise DirectionError(
            f"{file} is not one of edgedit's directions; make one of it with `edgedit import direction KIND "
            f"{shlex.quote(str(file))} -o NAME{SUFFIX}` (`edgedit import direction --help` tells the kinds)"
        )
    if match and match["sign"] != ":":
        raise DirectionError(f"edit {item!r} is not NAME:STRENGTH; write {name}:{match['strength']}")
