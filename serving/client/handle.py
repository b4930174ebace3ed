"""The handle that a client gives for an inverted photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from engines.photo import Alignment, Tone
from engines.photo.tone import PLAIN
from serving.client.errors import RequestError


@dataclass(frozen=True, eq=False, slots=True)
class Handle:
    """An inversion that a server holds, and what it takes to make it again should the server have dropped it.

    A handle made from an `id` alone works for as long as the server holds that inversion.
    """

    id: str
    """The server's name of the inversion; the same photo has the same one."""
    crop: np.ndarray | None = None
    """uint8 h x w x 3, read-only: the face as the model sees it."""
    alignment: Alignment | None = None
    """The place of the face in the photo; None if the photo was given as an aligned face."""
    tone: Tone = PLAIN
    """The photo's light and colours, in which edits come back; the model's own if they are not known."""

    def __post_init__(self) -> None:
        if self.crop is not None:
            crop = self.crop.view()
            crop.flags.writeable = False
            object.__setattr__(self, "crop", crop)

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Handle) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a handle holds a photo and is not pickled; keep its id, or the photo")


def as_handle(handle: Handle | str) -> Handle:
    """A handle, or one made of an id; a RequestError for anything else."""
    if isinstance(handle, Handle):
        return handle
    if isinstance(handle, str) and handle:
        return Handle(handle)
    raise RequestError(f"a handle is what `invert` gives, or its id; got {type(handle).__name__}")
