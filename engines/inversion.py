"""Inversions: on the host, in a file, or where a session's runtime computes."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from engines import tensors
from engines.errors import EdgeditError
from engines.files import write
from engines.runtimes import DeviceTensor

_METADATA = "inversion"


@dataclass(frozen=True, eq=False)
class Inversion:
    """Everything that an edit needs of a batch of photos; float32, first axis the photos.

    Raises:
        ValueError: at construction, if an array is not float32 or the shapes do not fit together.
    """

    w: np.ndarray
    """B x N x D, the reconstruction code."""
    feature: np.ndarray
    """B x C x H x W, the enhanced feature tensor f' (eq. 3.3)."""
    w_e: np.ndarray
    """B x N x D, the editing-friendly code."""
    generator_feature: np.ndarray
    """B x C x H x W, F = G(w_e^{1:k}), the generator's own feature."""

    def __post_init__(self) -> None:
        for field in fields(self):
            array = getattr(self, field.name)
            if not isinstance(array, np.ndarray) or array.dtype != np.float32:
                raise ValueError(f"inversion: {field.name} must be a float32 array")
        pairs = ((self.w, self.w_e, 3), (self.feature, self.generator_feature, 4))
        if any(a.shape != b.shape or a.ndim != n for a, b, n in pairs) or len(self.w) != len(self.feature):
            shapes = ", ".join(f"{field.name} {getattr(self, field.name).shape}" for field in fields(self))
            raise ValueError(f"inversion: the shapes do not fit together: {shapes}")

    @property
    def batch(self) -> int:
        """B, how many photos."""
        return self.shape("w")[0]

    def shape(self, field: str) -> tuple[int, ...]:
        """Extents of one of the arrays."""
        return getattr(self, field).shape

    def host(self) -> Inversion:
        """This inversion in arrays of its own on the host, holding no memory of a runtime."""
        return self

    def __len__(self) -> int:
        return self.batch

    def __getitem__(self, index: int | slice | Iterable[int]) -> Inversion:
        """Some of the photos; a single index gives a batch of one. Slices are views.

        Raises:
            IndexError: for an index outside the batch.
        """
        if isinstance(index, slice):
            chosen: Any = index
        elif isinstance(index, int | np.integer):
            chosen = [int(index)]
        else:
            chosen = list(index)
        return Inversion(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file.

        Raises:
            OutputError: if it cannot be written.
        """
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        write(path, tensors.dump(arrays, _METADATA, {"version": 1}))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            EdgeditError: if it cannot be read or is not an inversion.
        """
        try:
            arrays, metadata = tensors.parse(Path(path).read_bytes(), _METADATA)
            if metadata != {"version": 1}:
                raise ValueError(f"version {metadata.get('version')!r} is not read by this edgedit")
            inversion = cls(**arrays)
        except OSError as error:
            raise EdgeditError(f"cannot read {path}: {error.strerror or error}") from error
        except (TypeError, ValueError) as error:
            raise EdgeditError(f"{path} is not a saved inversion: {error}") from error
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise EdgeditError(f"{path} is damaged: it holds values that are not finite; invert the photo again")
        return inversion


FIELDS = tuple(field.name for field in fields(Inversion))


class HeldInversion(Inversion):
    """An inversion that stays where a session's runtime computes, so that edits of that session move none of it.

    Everything that an `Inversion` offers is here too: an array is copied to the host when it is first asked for, and
    is read-only, since edits do not look at it. All photos of a batch stay together: some of them, as `inversion[2]`
    gives, are a copy on the host.
    """

    _held: dict[str, DeviceTensor]
    _owner: weakref.ref[object]

    def __init__(self, held: Mapping[str, DeviceTensor], owner: object) -> None:
        """Args:
        held: tensors by field, not checked.
        owner: the session whose runtime holds them; it is not kept alive.
        """
        object.__setattr__(self, "_held", dict(held))
        object.__setattr__(self, "_owner", weakref.ref(owner))

    def held_by(self, session: object) -> dict[str, DeviceTensor] | None:
        """The tensors, for the session that holds them; None for any other."""
        return self._held if session is self._owner() else None

    def shape(self, field: str) -> tuple[int, ...]:
        return self._held[field].shape

    def host(self) -> Inversion:
        return Inversion(*(self._held[name].numpy() for name in FIELDS))

    def __getitem__(self, index: int | slice | Iterable[int]) -> Inversion:
        if not isinstance(index, int | slice | np.integer):
            index = list(index)
        everyone = np.arange(self.batch)
        return self if np.array_equal(np.atleast_1d(everyone[index]), everyone) else super().__getitem__(index)

    def __getattr__(self, name: str) -> np.ndarray:
        # Reached only for what is not there yet.
        if name not in FIELDS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        array = self._held[name].numpy()
        array.flags.writeable = False
        object.__setattr__(self, name, array)
        return array

    def __reduce__(self) -> tuple[type[Inversion], tuple[np.ndarray, ...]]:
        # A copy, or what another process gets, cannot be held.
        return Inversion, tuple(self._held[name].numpy() for name in FIELDS)
