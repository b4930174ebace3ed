"""Verbs on photos: edit, reconstruct, demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from edgedit.commands.common import Crediting, console, say
from edgedit.demo import ASTRONAUT
from edgedit.pictures import MarkKind, Output, Picture, demo_file, edit_file, edits_of, reconstruct_file
from engines.photo import PasteMode
from engines.photo.credentials import Credentials
from engines.photo.sources import SUFFIXES
from engines.store import check_output


@dataclass(frozen=True, kw_only=True)
class Picturing(Crediting):
    """Options of the verbs that take a photo and write a picture."""

    aligned: bool = False
    """The image is an aligned face already: edit it whole, at the model's size."""
    face: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: the largest)")] = None
    """Which face of several, 0 the largest."""
    paste: PasteMode = "auto"
    """How the face is put back: "detail" adds the change to the photo's own texture, "replace" takes the model's
    pixels, "auto" adds where the photo has more pixels than the model."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """The file to write; its suffix chooses PNG, JPEG or WebP."""
    mark: Annotated[MarkKind | None, tyro.conf.arg(help_behavior_hint="(default: no mark)")] = None
    """Also mark a corner of the picture for people to see: with the word "edited", or with the edits' names too."""

    def output(self) -> Output:
        """The picture's place, with what signs it: opened before any work.

        Raises:
            OutputError, CredentialsError: if the file, the options or the key will not do.
        """
        check_output(self.out, SUFFIXES)
        wanted = self.wants_credentials()
        credentials = Credentials(**self.signing(), progress=say) if wanted else False
        return Output(self.out, credentials, self.mark)

    def picking(self) -> dict[str, Any]:
        """The arguments of `edgedit.pictures` that say how the face is picked and put back."""
        return {"aligned": self.aligned, "face": self.face, "mode": self.paste}

    def written(self, picture: Picture, photo: Path, **more: Any) -> dict[str, Any]:
        """Says what was written; returns the summary."""
        say(f"wrote {self.out} ({picture.width}x{picture.height}), with {picture.words}")
        size = {"width": picture.width, "height": picture.height}
        summary = {"out": str(self.out), **size, "bundle": str(self.bundle), "credentials": picture.form}
        return summary | {"photo": str(photo)} | more


@dataclass(frozen=True, kw_only=True)
class Edit(Picturing):
    """Find the face in a photo, edit it along one or more directions, and put it back."""

    photo: tyro.conf.Positional[Path]
    """PNG, JPEG or WebP."""
    direction: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(aliases=("-d",))]
    """A direction, as NAME with --strength, or NAME:STRENGTH; may be given several times. A name that ends in
    .safetensors is a file, as `edgedit import direction` writes."""
    strength: Annotated[float | None, tyro.conf.arg(aliases=("-s",), help_behavior_hint="")] = None
    """Strength of the directions that do not give their own."""
    clamp: bool = False
    """Limit strengths to the usable ranges instead of only warning."""

    def run(self) -> dict[str, Any]:
        edits = edits_of(self.direction, self.strength)
        out = self.output()
        what = ", ".join(f"{name} {strength:+g}" for name, strength in edits.items())
        say(f"editing {self.photo}: {what}")
        picture = edit_file(self.load(), self.photo, edits, out, clamp=self.clamp, **self.picking())
        return self.written(picture, self.photo, edits=picture.edits)


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Picturing):
    """Invert the face in a photo and put its reconstruction back: what the model sees."""

    photo: tyro.conf.Positional[Path]
    """PNG, JPEG or WebP."""

    def run(self) -> dict[str, Any]:
        out = self.output()
        say(f"reconstructing {self.photo}")
        picture = reconstruct_file(self.load(), self.photo, out, **self.picking())
        console.print(f"the aligned face is reconstructed at {picture.psnr_db:.1f} dB")
        return self.written(picture, self.photo, psnr_db=picture.psnr_db)


@dataclass(frozen=True, kw_only=True)
class Demo(Picturing):
    """Write a contact sheet: a photo, its reconstruction, a row of edits per attribute, and edits put back into it."""

    photo: Annotated[
        tyro.conf.Positional[Path], tyro.conf.arg(help_behavior_hint="(default: the astronaut of the package)")
    ] = ASTRONAUT
    """PNG, JPEG or WebP."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))] = Path("edgedit-demo.jpg")
    """The sheet's file; its suffix chooses PNG, JPEG or WebP."""
    direction: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(aliases=("-d",))] = ()
    """Directions to show; the default is every attribute direction of the bundle."""

    def run(self) -> dict[str, Any]:
        out = self.output()
        picture = demo_file(self.load(), self.photo, self.direction, out, **self.picking(), progress=say)
        return self.written(picture, self.photo, directions=list(picture.edits))
