"""Verbs on photos: edit, reconstruct, demo."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from edgedit.commands.common import Running, check_output, console, say
from edgedit.demo import ASTRONAUT, demo_sheet
from engines.directions import parse_edits, resolve
from engines.directions.direction import SUFFIX
from engines.errors import DirectionError
from engines.photo import PasteMode, save_image
from engines.photo.sources import SUFFIXES

_PUBLISHED = (".pt", ".pth", ".npy", ".npz", ".pkl", ".pickle", ".ckpt", ".txt", ".csv")
"""How the names of others' direction files end."""

_FORM = re.compile(r"(?P<name>.+?)\s*(?P<sign>[:= ])\s*(?P<strength>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
"""A name and its strength, also with another sign in between than the right one."""


@dataclass(frozen=True, kw_only=True)
class Picking(Running):
    """Options of the verbs that take a photo."""

    aligned: bool = False
    """The image is an aligned face already: edit it whole, at the model's size."""
    face: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: the largest)")] = None
    """Which face of several, 0 the largest."""
    paste: PasteMode = "auto"
    """How the face is put back: "detail" adds the change to the photo's own texture, "replace" takes the model's
    pixels, "auto" adds where the photo has more pixels than the model."""


@dataclass(frozen=True, kw_only=True)
class Edit(Picking):
    """Find the face in a photo, edit it along one or more directions, and put it back."""

    photo: tyro.conf.Positional[Path]
    """PNG, JPEG or WebP."""
    direction: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(aliases=("-d",))]
    """A direction, as NAME with --strength, or NAME:STRENGTH; may be given several times. A name that ends in
    .safetensors is a file, as `edgedit import direction` writes."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """Where to write; the suffix chooses PNG, JPEG or WebP."""
    strength: Annotated[float | None, tyro.conf.arg(aliases=("-s",), help_behavior_hint="")] = None
    """Strength of the directions that do not give their own."""
    clamp: bool = False
    """Limit strengths to the usable ranges instead of only warning."""

    def edits(self) -> dict[str, float]:
        """Strength by direction.

        Raises:
            DirectionError: if there is none, a direction has no strength, or --strength no direction.
        """
        if not self.direction:
            raise DirectionError("nothing to edit: give --direction NAME:STRENGTH (`edgedit directions` lists names)")
        for item in self.direction:
            _check_form(item)
        bare = [item for item in self.direction if ":" not in item]
        if bare and self.strength is None:
            raise DirectionError(f"direction {bare[0]!r} has no strength: write {bare[0]}:1.5 or add --strength 1.5")
        if self.strength is not None and not bare:
            raise DirectionError(
                "--strength is for directions without one of their own, and all have one: leave it out"
            )
        return parse_edits(item if ":" in item else f"{item}:{self.strength}" for item in self.direction)

    def run(self) -> dict[str, Any]:
        edits = self.edits()
        check_output(self.out, SUFFIXES)
        what = ", ".join(f"{name} {strength:+g}" for name, strength in edits.items())
        console.print(f"editing {self.photo}: {what}", markup=False)
        editor = self.load()
        files = [name for name in edits if name.endswith(SUFFIX)]
        added = {name: editor.add_direction(name).name for name in files}
        if len({added.get(name, name) for name in edits}) < len(edits):
            raise DirectionError("two of these directions have the same name; give one strength for it")
        edits = {added.get(name, name): strength for name, strength in edits.items()}
        # Also before the inversion, which may take long: a name may be misspelt.
        resolve(editor.directions, edits, editor.family, self.clamp)
        portrait = editor.portrait(self.photo, self.aligned, face=self.face)
        pixels = portrait.edit(edits, clamp=self.clamp, mode=self.paste)
        alpha = None if self.aligned else portrait.photo.alpha
        save_image(self.out, pixels, alpha=alpha)
        return _written(self, pixels, edits=edits, photo=str(self.photo))


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Picking):
    """Invert the face in a photo and put its reconstruction back: what the model sees."""

    photo: tyro.conf.Positional[Path]
    """PNG, JPEG or WebP."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """Where to write; the suffix chooses PNG, JPEG or WebP."""

    def run(self) -> dict[str, Any]:
        check_output(self.out, SUFFIXES)
        console.print(f"reconstructing {self.photo}", markup=False)
        portrait = self.load().portrait(self.photo, self.aligned, face=self.face)
        pixels = portrait.reconstruct(mode=self.paste)
        save_image(self.out, pixels, alpha=None if self.aligned else portrait.photo.alpha)
        error = np.square(portrait.reconstruction.astype(np.float64) - portrait.aligned).mean()
        psnr = float(10 * np.log10(255**2 / max(error, 1e-9)))
        console.print(f"the aligned face is reconstructed at {psnr:.1f} dB")
        return _written(self, pixels, psnr_db=psnr, photo=str(self.photo))


@dataclass(frozen=True, kw_only=True)
class Demo(Picking):
    """Write a contact sheet: a photo, its reconstruction, a row of edits per attribute, and edits put back into it."""

    photo: Annotated[
        tyro.conf.Positional[Path], tyro.conf.arg(help_behavior_hint="(default: the astronaut of the package)")
    ] = ASTRONAUT
    """PNG, JPEG or WebP."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("edgedit-demo.jpg")
    """Where to write the sheet; the suffix chooses PNG, JPEG or WebP."""
    direction: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(aliases=("-d",))] = ()
    """Directions to show; the default is every attribute direction of the bundle."""

    def run(self) -> dict[str, Any]:
        check_output(self.out, SUFFIXES)
        editor = self.load()
        options = {"aligned": self.aligned, "face": self.face, "mode": self.paste}
        sheet, names = demo_sheet(editor, self.photo, self.direction, **options, progress=say)
        save_image(self.out, sheet)
        return _written(self, sheet, photo=str(self.photo), directions=names)


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


def _written(verb: Edit | Reconstruct | Demo, pixels: np.ndarray, **more: Any) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    console.print(f"wrote {verb.out} ({width}x{height})", markup=False)
    return {"out": str(verb.out), "width": width, "height": height, "bundle": str(verb.bundle), **more}
