"""A photo with a face that is ready for edits: what `Editor.portrait` gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engines.directions import Strength
from engines.photo import Alignment, Cut, PasteMode, Photo, paste_mode
from engines.photo.credentials import Credentials
from engines.session import Inversion

if TYPE_CHECKING:
    from edgedit.editor import Editor


@dataclass(frozen=True, eq=False)
class Portrait:
    """A photo with one of its faces found, aligned and inverted, ready for any number of edits.

    Example:
        >>> portrait = edgedit.Editor.load(bundle).portrait(photo)
        >>> pictures = [portrait.edit({"smile": strength}) for strength in (-2, 2)]
    """

    editor: Editor
    cut: Cut
    """The photo, and the face that was cut out of it."""
    inversion: Inversion

    @cached_property
    def reconstruction(self) -> np.ndarray:
        """uint8 S x S x 3: the face as the model renders it without an edit, in its own light and colours.

        Rendered when it is first needed: an edit that takes the model's pixels has no use for it.
        """
        return self.editor.session.reconstruct(self.inversion)[0]

    @property
    def photo(self) -> Photo:
        """The photo."""
        return self.cut.photo

    @property
    def aligned(self) -> np.ndarray:
        """The face as the model sees it, uint8 S x S x 3: that of a dark photo is lighter than the photo."""
        return self.cut.crop

    @property
    def alignment(self) -> Alignment | None:
        """The place of the face in the photo; None if the photo was given as an aligned face."""
        return self.cut.alignment

    def edit(
        self, edits: Mapping[str, float | Strength], *, clamp: bool = False, mode: PasteMode = "auto"
    ) -> np.ndarray:
        """The photo with the face edited and put back, uint8 H x W x 3; see `Editor.edit_photo`."""
        edited = self.editor.render(self.inversion, edits, clamp=clamp)
        if mode == "auto" and self.alignment is not None:
            mode = paste_mode(self.alignment, len(edited))
        return self.cut.put_back(edited, self.reconstruction if mode == "detail" else edited, mode)

    def edit_face(self, edits: Mapping[str, float | Strength], *, clamp: bool = False) -> np.ndarray:
        """The edited face alone, uint8 S x S x 3, in the photo's light and colours."""
        return self.cut.in_tone(self.editor.render(self.inversion, edits, clamp=clamp))

    def reconstruct(self, *, mode: PasteMode = "auto") -> np.ndarray:
        """The photo with the face as the model renders it, put back, uint8 H x W x 3."""
        return self.cut.put_back(self.reconstruction, self.aligned, mode)

    def save(
        self,
        path: str | Path,
        edits: Mapping[str, float | Strength],
        *,
        clamp: bool = False,
        mode: PasteMode = "auto",
        credentials: Credentials | bool = True,
    ) -> Path:
        """Edits the photo and writes it, with what it says of the edit; see `Editor.save`."""
        pixels = self.edit(edits, clamp=clamp, mode=mode)
        return self.editor.save(path, pixels, edits, photo=self.photo, alpha=self.alpha, credentials=credentials)

    @property
    def alpha(self) -> np.ndarray | None:
        """The opacity of the picture with the face put back, uint8 H x W; None where all is opaque."""
        return None if self.alignment is None else self.photo.alpha
