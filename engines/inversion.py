"""Inversions: on the host, in a file, or where a session's runtime computes."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines import tensors
from engines.errors import EdgeditError
from engines.photo.tone import PLAIN, Tone
from engines.runtimes import DeviceTensor
from engines.store import write

_METADATA = "inversion"
_MAX_TENSORS = 128
"""A bound for one inversion, far above any method's."""


class Inversion:
    """Everything that an edit needs of a batch of photos: named float32 arrays, first axis the photos.

    Names and shapes are those that the `invert` graph of the bundle gives (`Bundle.inversion`), another set for each
    method. Each array is an attribute of its name, too. Of the project's own method they are

        w                  B x N x D, the reconstruction code
        feature            B x C x H x W, the enhanced feature tensor f' (eq. 3.3)
        w_e                B x N x D, the editing-friendly code
        generator_feature  B x C x H x W, F = G(w_e^{1:k}), the generator's own feature

    Args:
        arrays: by name, in the order of the graph.
        tones: the light and colours of each photo, where there were photos; none for the model's own.

    Raises:
        ValueError: if there are none, an array is not float32, or they are not of the same number of photos.

    Example:
        >>> editor = edgedit.Editor.load(bundle)
        >>> inversion = editor.invert(photo)
        >>> len(inversion), inversion.names
        (1, ('w', 'feature', 'w_e', 'generator_feature'))
        >>> smiling = editor.edit(inversion, {"smile": 2.0})
    """

    _arrays: dict[str, np.ndarray]
    tones: tuple[Tone, ...]
    """The tone of each photo, in order."""

    def __init__(self, arrays: Mapping[str, np.ndarray], tones: Sequence[Tone] = ()) -> None:
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim < 2:
                raise ValueError(f"inversion: {name} must be a float32 array with the photos first")
        if not 1 <= len(arrays) <= _MAX_TENSORS or len({len(array) for array in arrays.values()}) > 1:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no arrays"
            raise ValueError(f"inversion: the shapes do not fit together: {shapes}")
        self._arrays = dict(arrays)
        self._keep(tones)

    def _keep(self, tones: Sequence[Tone]) -> None:
        self.tones = tuple(tones) or (PLAIN,) * self.batch
        if len(self.tones) != self.batch:
            raise ValueError(f"inversion: {len(self.tones)} tones of {self.batch} photos")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arrays, in order."""
        return tuple(self._arrays)

    @property
    def batch(self) -> int:
        """B, how many photos."""
        return self.shape(self.names[0])[0]

    def shape(self, name: str) -> tuple[int, ...]:
        """Extents of one of the arrays."""
        return self._arrays[name].shape

    def array(self, name: str) -> np.ndarray:
        """One of the arrays.

        Raises:
            KeyError: if there is none of that name.
        """
        return self._arrays[name]

    def host(self) -> Inversion:
        """This inversion in arrays of its own on the host, holding no memory of a runtime."""
        return self

    def __getattr__(self, name: str) -> np.ndarray:
        # Reached only for what is no attribute. `_arrays` itself is not there yet while a copy is being made.
        try:
            return self.__dict__["_arrays"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def __len__(self) -> int:
        return self.batch

    def __getitem__(self, index: int | slice | Iterable[int]) -> Inversion:
        """An inversion of some of the photos; a single index gives a batch of one. Slices are views.

        Raises:
            IndexError: for an index outside the batch.
        """
        if isinstance(index, slice):
            chosen: Any = index
        elif isinstance(index, int | np.integer):
            chosen = [int(index)]
        else:
            chosen = list(index)
        tones = [self.tones[each] for each in np.arange(self.batch)[chosen]]
        return Inversion({name: self.array(name)[chosen] for name in self.names}, tones)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file, with the light and colours of photos that have their own.

        Raises:
            OutputError: if it cannot be written.
        """
        metadata: dict[str, Any] = {"version": 1}
        if not all(tone.plain for tone in self.tones):
            metadata = {"version": 2, "tones": [tone.to_json() for tone in self.tones]}
        write(path, tensors.dump({name: self.array(name) for name in self.names}, _METADATA, metadata))

    @classmethod
    def load(cls, path: str | Path) -> Inversion:
        """Reads what `save` wrote. Whether it is one of the bundle at hand shows when a session is given it.

        Raises:
            EdgeditError: if it cannot be read or is not an inversion.
        """
        try:
            arrays, metadata = tensors.parse(Path(path).read_bytes(), _METADATA)
            match metadata:
                case {"version": 1, **others} if not others:
                    tones = []
                case {"version": 2, "tones": [_, *_] as entries, **others} if not others:
                    tones = [Tone.from_json(one) for one in entries]
                case _:
                    raise ValueError(f"version {metadata.get('version')!r} is not read by this edgedit")
            inversion = Inversion(arrays, tones)
        except OSError as error:
            raise EdgeditError(f"cannot read {path}: {error.strerror or error}") from error
        except (TypeError, ValueError) as error:
            raise EdgeditError(f"{path} is not a saved inversion: {error}") from error
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise EdgeditError(f"{path} is damaged: it holds values that are not finite; invert the photo again")
        return inversion


class HeldInversion(Inversion):
    """An inversion that stays where a session's runtime computes, so that edits of that session move none of it.

    Everything that an `Inversion` offers is here too: an array is copied to the host when it is first asked for, and
    is read-only, since edits do not look at it. All photos of a batch stay together: some of them, as `inversion[2]`
    gives, are a copy on the host.
    """

    _held: dict[str, DeviceTensor]
    _owner: weakref.ref[object]

    def __init__(self, held: Mapping[str, DeviceTensor], owner: object, tones: Sequence[Tone] = ()) -> None:
        """Holds tensors by name, which are not checked, of a session that is not kept alive."""
        self._arrays = {}
        self._held = dict(held)
        self._owner = weakref.ref(owner)
        self._keep(tones)

    def held_by(self, session: object) -> dict[str, DeviceTensor] | None:
        """The tensors, for the session that holds them; None for any other."""
        return self._held if session is self._owner() else None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._held)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._held[name].shape

    def array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            array = self._held[name].numpy()
            array.flags.writeable = False
            self._arrays[name] = array
        return self._arrays[name]

    def host(self) -> Inversion:
        return Inversion({name: tensor.numpy() for name, tensor in self._held.items()}, self.tones)

    def __getitem__(self, index: int | slice | Iterable[int]) -> Inversion:
        if not isinstance(index, int | slice | np.integer):
            index = list(index)
        everyone = np.arange(self.batch)
        return self if np.array_equal(np.atleast_1d(everyone[index]), everyone) else super().__getitem__(index)

    def __getattr__(self, name: str) -> np.ndarray:
        if name in self.__dict__.get("_held", ()):
            return self.array(name)
        return super().__getattr__(name)

    def __reduce__(self) -> tuple[type[Inversion], tuple[dict[str, np.ndarray], tuple[Tone, ...]]]:
        # A copy, or what another process gets, cannot be held.
        return Inversion, ({name: tensor.numpy() for name, tensor in self._held.items()}, self.tones)
