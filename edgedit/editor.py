"""The Python API: one object that inverts and edits photos with a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np

from edgedit.portrait import Portrait
from engines.bundle import Bundle
from engines.bundle.signing import ensure_signed
from engines.directions import Direction, Strength, load_directions, pick, resolve
from engines.errors import BundleError, DirectionError
from engines.packages import Progress
from engines.photo import Cropper, Cut, PasteMode, Photo, open_image, photo_name, save_image
from engines.photo.credentials import Credentials, Edits, Statement, own_credentials
from engines.photo.images import Source
from engines.session import EditSession, Inversion

PORTRAIT_BUNDLE = Path(__file__).parent / "bundles" / "portrait"
"""The bundle that comes with the package, without its generator (see engines.bundle.completion): 1024-pixel faces.

Example:
    >>> (edgedit.PORTRAIT_BUNDLE / "card.md").read_text().partition("\\n")[0]
    '# Model card: faces-1024-mobile'
"""


def open_bundle(
    bundle: str | Path = PORTRAIT_BUNDLE, verify: bool = True, progress: Progress = lambda line: None
) -> Bundle:
    """`Bundle.load`, with a message of its own where the portrait bundle is not installed.

    Raises:
        EdgeditError: as `Bundle.load`.
    """
    if Path(bundle) == PORTRAIT_BUNDLE and not PORTRAIT_BUNDLE.is_dir():
        raise BundleError("the portrait bundle is not part of this installation; name the directory of another bundle")
    return Bundle.load(bundle, verify, progress)


class Editor:
    """Inverts photos, edits them along named directions and pastes the result back.

    A server that forks loads one in each worker, after the fork: see `EditSession`.

    Args:
        session: runs the graphs of a bundle.
        directions: by name.
        progress: is told if the face detector's weights are to be fetched first.

    Example:
        >>> editor = edgedit.Editor.load(bundle)
        >>> picture = editor.edit_photo(photo, {"smile": 2.0})
        >>> picture.dtype, picture.ndim
        (dtype('uint8'), 3)
    """

    def __init__(
        self, session: EditSession, directions: Mapping[str, Direction], progress: Progress = lambda line: None
    ) -> None:
        self.session = session
        self.family = session.family
        self.directions = dict(directions)
        self._cropper = Cropper(progress)

    @classmethod
    def load(
        cls,
        bundle: str | Path = PORTRAIT_BUNDLE,
        runtime: str = "onnxruntime",
        *,
        public_key: str | Path | None = None,
        progress: Progress = lambda line: None,
        **options: Any,
    ) -> Self:
        """Opens a bundle; every file's digest is checked first, and then its signature if one is required.

        Args:
            bundle: the bundle's directory.
            runtime: a name of `engines.runtimes`.
            public_key: PEM file of the public key that must have signed the bundle; None asks for no signature.
            progress: is told if the bundle is to be completed first, which takes seconds, or weights are to be fetched.
            options: passed to the runtime, such as `provider="cuda"` or `threads=4` (never more than this process may
                use, see `engines.cpus`).

        Raises:
            BundleError: if it is not a bundle, or damaged.
            SignatureError: if a signature is required and is not there or does not hold.
            RuntimeUnavailableError: for a runtime or provider that is not known, not installed or cannot start; or if
                the package that the bundle is to be completed from is not installed and cannot be fetched.
            PackageError, OutputError: as `engines.bundle.completion.complete`.
        """
        loaded = open_bundle(bundle, progress=progress)
        if public_key is not None:
            ensure_signed(loaded, public_key)
            # The runtime holds the engines it opens against the signature too.
            options["public_key"] = public_key
        session = EditSession(loaded, runtime, **options)
        session.prepare("invert")
        return cls(session, load_directions(loaded), progress)

    def add_direction(self, direction: Direction | str | Path) -> Direction:
        """Makes a direction known under its own name, such as one that `edgedit import direction` wrote.

        Args:
            direction: itself or its file; one of the same name is replaced.

        Raises:
            DirectionError: if the file is not a direction, or it was made for another family.
        """
        added = direction if isinstance(direction, Direction) else Direction.load(direction)
        resolve({added.name: added}, {added.name: added.max_strength}, self.family)
        self.directions[added.name] = added
        return added

    def invert(self, image: Source, aligned: bool = False, *, face: int | None = None) -> Inversion:
        """Inverts one face; edits of it cost no inversion again.

        Args:
            image: a photo.
            aligned: the image is an FFHQ-aligned face already and is only resized.
            face: which face of a photo with several, 0 the largest; None takes the largest.

        Raises:
            ImageError: if it cannot be read or, as NoFaceError, has no such face.
        """
        cut = self.cut(image, aligned, face=face)
        return self.session.invert(cut.crop[None], (cut.tone,))

    def reconstruct(self, inversion: Inversion) -> np.ndarray:
        """The inverted face without an edit, S x S x 3 uint8, of the inversion's first photo; in tone as `edit`."""
        return inversion.tones[0].shown(self.session.reconstruct(inversion[0])[0])

    def edit(
        self,
        inversion: Inversion,
        edits: Mapping[str, float | Strength],
        *,
        clamp: bool = False,
        delta_w: np.ndarray | None = None,
    ) -> np.ndarray:
        """An edited face, S x S x 3 uint8, of the inversion's first photo.

        It has the photo's light and colours, which the inversion knows, also from a file: that of a dark photo is as
        dark, that of a black-and-white one has equal channels, that of a toned one its tint. The photo itself it does
        not know: what is bright behind a dark face comes back with `edit_photo` or a `portrait`. An inversion of
        `EditSession.invert` alone, or from a file of an older edgedit, gives the model's own picture.

        Args:
            inversion: from `invert`.
            edits: strength by direction, a number or a `Strength` that acts on some W+ rows; several are added up.
            clamp: limit strengths to the directions' usable ranges.
            delta_w: N x D, added to the directions' sum, such as what a latent mapper gives for `inversion`'s code.

        Raises:
            DirectionError: for an unknown direction, a strength that is not finite, a `delta_w` that does not fit, or
                an edit so large that the picture is lost.

        Warns:
            StrengthWarning: for a strength outside its direction's usable range.
        """
        return inversion.tones[0].shown(self.render(inversion, edits, clamp=clamp, delta_w=delta_w))

    def render(
        self,
        inversion: Inversion,
        edits: Mapping[str, float | Strength],
        *,
        clamp: bool = False,
        delta_w: np.ndarray | None = None,
    ) -> np.ndarray:
        """The model's own picture of `edit`, in the light and colours of the faces that it was trained on."""
        edit = resolve(self.directions, edits, self.family, clamp)
        moved = edit.delta_w
        if delta_w is not None:
            delta_w = np.asarray(delta_w)
            if delta_w.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    delta_w = delta_w.astype(np.float32)
            if delta_w.shape != moved.shape or delta_w.dtype.kind != "f" or not np.isfinite(delta_w).all():
                raise DirectionError(
                    f"delta_w must be {moved.shape[0]} x {moved.shape[1]} finite numbers for family "
                    f"{self.family.name}, got {delta_w.dtype} of shape {delta_w.shape}"
                )
            moved = moved + delta_w
        return self.session.edit(inversion[0], moved, edit.style_delta)[0]

    def sweep(
        self,
        inversion: Inversion,
        direction: str,
        start: float,
        stop: float,
        steps: int,
        *,
        edits: Mapping[str, float | Strength] | None = None,
        clamp: bool = False,
    ) -> Iterator[tuple[float, np.ndarray]]:
        """One direction at `steps` strengths from `start` to `stop`, both included, each with its edited face.

        Args:
            inversion, clamp: as `edit`.
            direction: the one that changes.
            edits: others, held.

        Raises:
            DirectionError: as `edit`, at once, or for fewer than one step.

        Warns:
            StrengthWarning: as `edit`.
        """
        if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 1:
            raise DirectionError(f"steps must be 1 or more, got {steps!r}")
        frames = [{**(edits or {}), direction: value} for value in np.linspace(start, stop, int(steps)).tolist()]
        for ends in (frames[0], frames[-1]):
            resolve(self.directions, ends, self.family, clamp)
        return ((frame[direction], self.edit(inversion, frame, clamp=clamp)) for frame in frames)

    def strength_to(self, inversion: Inversion, direction: str, coordinate: float) -> float:
        """The strength that takes the inversion's first photo to a coordinate along a GANSpace component.

        GANSpace's published strengths are such coordinates: how far the edited code lies from the mean code, in
        standard deviations, where it started left aside.

        Raises:
            DirectionError: for an unknown direction, or one that does not know the mean code.
        """
        return coordinate - pick(self.directions, direction).coordinate(inversion[0].host().w_e[0])

    def cut(self, photo: Source, aligned: bool = False, *, face: int | None = None) -> Cut:
        """Finds and cuts out a face without inverting it, as `portrait` does first; arguments and errors as `invert`.

        Returns:
            The photo and the face, h x w x 3 uint8 of the family's `image_shape`, for `EditSession.invert`.
        """
        shape, model = self.family.image_shape, f"family {self.family.name}"
        name = photo_name(photo)
        return self._cropper(open_image(photo), shape, aligned=aligned, face=face, name=name, model=model)

    def portrait(self, photo: Source, aligned: bool = False, *, face: int | None = None) -> Portrait:
        """Finds, aligns and inverts a face of a photo; arguments and errors as `invert`."""
        cut = self.cut(photo, aligned, face=face)
        return Portrait(self, cut, self.session.invert(cut.crop[None], (cut.tone,)))

    def edit_photo(
        self,
        photo: Source,
        edits: Mapping[str, float | Strength],
        *,
        aligned: bool = False,
        face: int | None = None,
        clamp: bool = False,
        mode: PasteMode = "auto",
    ) -> np.ndarray:
        """Finds a face, edits it and puts it back; for several edits of one photo see `portrait`.

        Args:
            photo: a photo.
            edits: strength by direction.
            aligned: the photo is an aligned face already: it is edited whole.
            face: which face, 0 the largest; None takes the largest.
            clamp: limit strengths to the usable ranges.
            mode: how the face is put back, see `engines.photo.paste_back`.

        Returns:
            uint8 H x W x 3, RGB, upright: the photo's size, or S x S x 3 of an aligned face.

        Raises:
            ImageError, NoFaceError, DirectionError: as `invert` and `edit`.
        """
        return self.portrait(photo, aligned, face=face).edit(edits, clamp=clamp, mode=mode)

    def save(
        self,
        path: str | Path,
        pixels: np.ndarray,
        edits: Edits,
        *,
        photo: Photo | None = None,
        alpha: np.ndarray | None = None,
        credentials: Credentials | bool = True,
    ) -> Path:
        """Writes a picture of this editor's, with what it says of how it was made.

        Args:
            path: its suffix chooses PNG, JPEG or WebP.
            pixels: uint8 H x W x 3.
            edits: what the picture says of it; empty for a reconstruction.
            photo: the original, if it is at hand.
            alpha: opacity, uint8 H x W.
            credentials: what signs; True takes this user's own key. False writes nothing of the edit into the file,
                and that the picture was edited is then yours to say.

        Raises:
            OutputError, ImageError, CredentialsError: as `engines.photo.credentials.Credentials.save`.
        """
        if credentials is False:
            return save_image(path, pixels, alpha=alpha)
        writer = own_credentials() if credentials is True else credentials
        return writer.save(path, pixels, Statement.of(self.session.bundle, edits, photo), alpha=alpha)
