"""The work on photos in one process: find and cut out faces, run the networks on several at once, put faces back."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from edgedit.batching.edits import NamedEdit
from edgedit.batching.journal import Failure
from edgedit.editor import PORTRAIT_BUNDLE, Editor
from engines.bundle import Bundle
from engines.directions import load_directions, resolve
from engines.errors import (
    BundleError,
    DirectionError,
    EdgeditError,
    ImageError,
    ImageTooLargeError,
    NoFaceError,
    OutputError,
)
from engines.inversion import Inversion
from engines.photo import Cut, PasteMode, paste_mode
from engines.photo.credentials import Credentials, Statement
from engines.photo.images import encode_image
from engines.photo.sources import SUFFIXES


@dataclass(frozen=True, eq=False)
class Recipe:
    """One edit, with its directions added up."""

    name: str
    strengths: Mapping[str, float]
    """Strengths by direction: what the results say of the edit."""
    delta_w: np.ndarray
    style_delta: np.ndarray
    mode: PasteMode | None
    """The way the face is put back; None for the face alone."""
    format: str | None
    """One of `engines.photo.sources.FORMATS`; None for that of the photo."""
    quality: int
    digest: str
    """SHA-256 of all of this and of what faces are found and inverted with."""

    def result(self, photo: str) -> PurePosixPath:
        """The path of a photo's result, in the folder of results: the photo's, with a suffix more for another format.

        A suffix in place of the photo's would give photos that differ in it alone the same result.
        """
        path = PurePosixPath(self.name) / photo
        if self.format in (None, SUFFIXES[path.suffix.lower()]):
            return path
        return path.with_name(f"{path.name}.{'jpg' if self.format == 'JPEG' else self.format.lower()}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a worker is made of: paths and plain values, so that another process can make one."""

    path: Path | None
    """The bundle's path; None for the portrait bundle, which lies elsewhere on every machine."""
    manifest: str
    """SHA-256 of the bundle's manifest."""
    runtime: str
    public_key: Path | None
    options: Mapping[str, Any] = field(default_factory=dict)
    """The runtime's options."""
    credentials: Mapping[str, Any] | None = field(default_factory=dict)
    """Arguments of `engines.photo.credentials.Credentials`; None for results that say nothing of their edits."""
    aligned: bool
    face: int | None
    finding: str
    """Digest of all that decides which face of a photo is taken."""
    recipes: tuple[Recipe, ...]

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        edits: Mapping[str, NamedEdit],
        *,
        aligned: bool,
        face: int | None,
        credentials: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Settings:
        """The settings for some edits with a bundle.

        Raises:
            DirectionError: if an edit names an unknown direction, or strengths that are too large; it names the edit.

        Warns:
            StrengthWarning: for a strength outside its direction's usable range.
        """
        manifest = bundle.digest()
        common = {"manifest": manifest, "aligned": aligned, "face": face}
        directions = load_directions(bundle)
        recipes = []
        for name, edit in edits.items():
            try:
                change = resolve(directions, edit.strengths, bundle.family, edit.options.clamp)
            except DirectionError as error:
                raise DirectionError(f"edit {name}: {error}") from error
            paste = edit.options.paste
            way = {
                "mode": ("auto" if paste else None) if isinstance(paste, bool) else paste,
                "format": edit.options.format and edit.options.format.upper(),
                "quality": edit.options.quality,
            }
            says = None if credentials is None else credentials.get("edits", True)
            digest = sha256(json.dumps(common | way | {"says": says}).encode())
            digest.update(change.delta_w.tobytes())
            digest.update(change.style_delta.tobytes())
            moves = change.delta_w, change.style_delta
            recipes.append(Recipe(name, edit.strengths, *moves, **way, digest=digest.hexdigest()))
        finding = sha256(json.dumps(common).encode()).hexdigest()
        known = {"manifest": manifest, "aligned": aligned, "face": face, "finding": finding}
        return cls(**known, credentials=credentials, recipes=tuple(recipes), **others)


class Task(NamedTuple):
    """A photo to work on."""

    name: str
    data: bytes
    """The bytes of its file."""
    sha256: str
    edits: tuple[int, ...]
    """The indices of its recipes."""


class Outcome(NamedTuple):
    """The outcome of a photo."""

    task: Task
    """The task, without its data."""
    failure: Failure | None
    """The failure of the photo as a whole."""
    results: list[tuple[int, bytes | Failure]]
    """The file of each edit, or why there is none."""


Edited = Sequence[tuple[int, "np.ndarray | Failure"]]
"""Edited faces of one photo, by recipe."""


class Worker:
    """Edits photos with a bundle; `prepare` and `finish` may be called from several threads.

    Args:
        settings: what to do.

    Raises:
        EdgeditError: as `Editor.load`; a BundleError if the bundle is not the one that the settings were made for.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._editor = Editor.load(
            settings.path or PORTRAIT_BUNDLE, settings.runtime, public_key=settings.public_key, **settings.options
        )
        bundle = self._editor.session.bundle
        if bundle.digest() != settings.manifest:
            raise BundleError(f"{bundle.name} is another bundle on this machine than on that which began the batch")
        self._credentials = None if settings.credentials is None else Credentials(**settings.credentials)

    def prepare(self, task: Task) -> Cut | Failure:
        """Decodes a photo and cuts its face out, or says why not.

        Raises:
            EdgeditError: for what is not the photo's fault, such as a detector that cannot be loaded.
        """
        stream = io.BytesIO(task.data)
        stream.name = task.name  # what messages call the photo
        try:
            return self._editor.cut(stream, self._settings.aligned, face=self._settings.face)
        except ImageError as error:
            return failure_of(error)
        except EdgeditError:
            raise
        except Exception as error:
            # A fault of ours, or no memory: one photo of thousands is no reason to stop.
            return _unexpected_failure(error)

    def edit(self, photos: Sequence[tuple[Task, Cut]]) -> list[tuple[Edited, np.ndarray | None]]:
        """Runs the networks on a batch.

        Returns:
            Of each photo, the edited faces and, if putting one of them back reads it, the reconstruction, S x S x 3.
        """
        session = self._editor.session
        inversion = session.invert(np.stack([cut.crop for _, cut in photos]))
        detailed = [at for at, (task, cut) in enumerate(photos) if self._reads_reconstruction(task, cut)]
        rendered = dict(zip(detailed, session.reconstruct(inversion[detailed]), strict=True)) if detailed else {}
        edited: list[list[tuple[int, np.ndarray | Failure]]] = [[] for _ in photos]
        for index in sorted({index for task, _ in photos for index in task.edits}):
            chosen = [at for at, (task, _) in enumerate(photos) if index in task.edits]
            for at, face in zip(chosen, self._render(inversion[chosen], index), strict=True):
                edited[at].append((index, face))
        return [(faces, rendered.get(at)) for at, faces in enumerate(edited)]

    def _render(self, inversion: Inversion, index: int) -> Iterable[np.ndarray | Failure]:
        recipe = self._settings.recipes[index]
        try:
            return self._editor.session.edit(inversion, recipe.delta_w, recipe.style_delta)
        except DirectionError as error:
            # Of one of them nothing is left; of the others there may be.
            if inversion.batch == 1:
                return [failure_of(error)]
            return [face for at in range(inversion.batch) for face in self._render(inversion[at], index)]

    def _reads_reconstruction(self, task: Task, cut: Cut) -> bool:
        alignment = cut.alignment
        if alignment is None:
            return False
        modes = {self._settings.recipes[index].mode for index in task.edits}
        return "detail" in modes or (
            "auto" in modes and paste_mode(alignment, self._editor.family.image_shape[0]) == "detail"
        )

    def finish(self, task: Task, cut: Cut, edited: Edited, rendered: np.ndarray | None) -> Outcome:
        """Puts edited faces back and encodes the results."""
        results: list[tuple[int, bytes | Failure]] = []
        for index, face in edited:
            if not isinstance(face, Failure):
                recipe = self._settings.recipes[index]
                try:
                    face = self._encoded(recipe, task.name, cut, face, rendered)
                except OutputError as error:
                    face = failure_of(error)
                except Exception as error:
                    face = _unexpected_failure(error)
            results.append((index, face))
        return Outcome(task._replace(data=b""), None, results)

    def _encoded(self, recipe: Recipe, name: str, cut: Cut, face: np.ndarray, rendered: np.ndarray | None) -> bytes:
        alpha = None
        if recipe.mode is None:
            pixels = cut.in_tone(face)
        else:
            pixels = cut.put_back(face, face if rendered is None else rendered, recipe.mode)
            alpha = None if cut.alignment is None else cut.photo.alpha
        kind = recipe.format or SUFFIXES[PurePosixPath(name).suffix.lower()]
        if self._credentials is None:
            return encode_image(pixels, kind, quality=recipe.quality, alpha=alpha)
        statement = Statement(self._settings.manifest, self._editor.session.bundle.name, recipe.strengths, cut.photo)
        return self._credentials.encode(pixels, kind, statement, quality=recipe.quality, alpha=alpha)

    def process(self, tasks: Sequence[Task]) -> list[Outcome]:
        """All of it for a few photos, one step behind the other."""
        outcomes, photos = [], []
        for task in tasks:
            cut = self.prepare(task)
            if isinstance(cut, Failure):
                outcomes.append(failed(task, cut))
            else:
                photos.append((task._replace(data=b""), cut))
        if photos:
            rows = zip(photos, self.edit(photos), strict=True)
            outcomes += [self.finish(task, cut, faces, rendered) for (task, cut), (faces, rendered) in rows]
        return outcomes


def failed(task: Task, failure: Failure) -> Outcome:
    """The outcome of a photo that nothing could be made of."""
    return Outcome(task._replace(data=b""), failure, [])


_KINDS = (
    (NoFaceError, "no face"),
    (ImageTooLargeError, "too large"),
    (ImageError, "broken file"),
    (DirectionError, "picture lost"),
    (OutputError, "not writable"),
)


def failure_of(error: EdgeditError) -> Failure:
    """An error of one photo as a failure."""
    return Failure(next(kind for cls, kind in _KINDS if isinstance(error, cls)), " ".join(str(error).split()))


def _unexpected_failure(error: Exception) -> Failure:
    return Failure("fault", f"{type(error).__name__}: {' '.join(str(error).split())}; please report it")
