"""One edit direction: a vector in W, W+ or StyleSpace with a usable range, and its safetensors file.

Kinds and their sources: InterFaceGAN (Shen et al. 2020: a vector in W or W+), GANSpace (Harkonen et al. 2020: a
principal component of W on a range of rows), StyleSpace (Wu et al. 2021: single style channels), StyleCLIP (Patashnik
et al. 2021: global directions in StyleSpace, vectors in W+).
"""

from __future__ import annotations

import math
import numbers
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np

from engines import tensors
from engines.bundle.contents import BundleContents
from engines.bundle.manifest import direction_file
from engines.errors import DirectionError
from engines.first_bytes import LENGTH, remedy
from engines.store import write

Kind = Literal["interfacegan", "ganspace", "stylespace", "styleclip"]
Space = Literal["w", "w+", "s"]

SUFFIX = ".safetensors"
"""The suffix of a direction's file."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_METADATA = "direction"
_TEXT_FIELDS = ("name", "kind", "space", "description", "source", "licence", "units")


@dataclass(frozen=True, kw_only=True, eq=False)
class Direction:
    """One direction; an edit adds `strength * vector` to a code.

    The vector is float32 and read-only: (D,) in "w", where it is added to every W+ row or to `rows`; (N, D) in "w+";
    (T,) in "s", StyleSpace's concatenated styles (see `ModelFamily.style_channels`).

    Raises:
        DirectionError: at construction, if the fields do not fit together.

    Example:
        >>> direction = edgedit.Direction(name="late", kind="interfacegan", space="w", vector=np.ones(512, np.float32),
        ...     rows=(8, 18), min_strength=-2, max_strength=2, description="", source="by hand", licence="CC0-1.0")
        >>> direction.save("late.safetensors")
        >>> edgedit.Direction.load("late.safetensors").rows
        (8, 18)
    """

    name: str
    kind: Kind
    space: Space
    vector: np.ndarray
    min_strength: float
    """Strengths outside [min_strength, max_strength] are known to break the image or the identity."""
    max_strength: float
    description: str
    source: str
    licence: str
    rows: tuple[int, int] | None = None
    """First and one-past-last W+ row that a "w" vector is added to. None: all."""
    units: str = ""
    """The unit of a strength, such as "standard deviations of the component"."""
    origin: float | None = None
    """Coordinate of the mean code along a "w" vector (see `coordinate`). None: not known."""

    def __post_init__(self) -> None:
        for field in _TEXT_FIELDS:
            if not isinstance(getattr(self, field), str):
                raise DirectionError(f"direction {self.name!r}: {field} must be text")
        if not _NAME.fullmatch(self.name):
            raise DirectionError(f"direction name {self.name!r} must be letters, digits, dots, dashes and underscores")
        for field, allowed in (("kind", get_args(Kind)), ("space", get_args(Space))):
            if getattr(self, field) not in allowed:
                raise DirectionError(
                    f"direction {self.name}: {field} must be one of {', '.join(allowed)}, got {getattr(self, field)!r}"
                )
        strengths = [finite_strength(self.name, value) for value in (self.min_strength, self.max_strength)]
        if not strengths[0] < strengths[1]:
            raise DirectionError(f"direction {self.name}: min_strength {strengths[0]} is not below {strengths[1]}")
        try:
            vector = np.array(self.vector, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise DirectionError(f"direction {self.name}: the vector is not an array of numbers") from error
        if vector.ndim != (2 if self.space == "w+" else 1) or vector.size == 0 or not np.isfinite(vector).all():
            raise DirectionError(
                f"direction {self.name}: a vector in {self.space} has {2 if self.space == 'w+' else 1} dimensions and "
                f"finite values, got shape {vector.shape}"
            )
        if not vector.any():
            raise DirectionError(f"direction {self.name}: the vector is zero, so that no strength of it edits anything")
        rows = self.rows
        if rows is not None:
            if self.space != "w":
                raise DirectionError(f"direction {self.name}: rows must be left out in {self.space}, got {rows!r}")
            rows = row_range(f"direction {self.name}", rows)
        if self.origin is not None:
            if self.space != "w":
                raise DirectionError(f"direction {self.name}: an origin is for a vector in w")
            object.__setattr__(self, "origin", finite_strength(self.name, self.origin))
        vector.flags.writeable = False
        for field, value in zip(
            ("min_strength", "max_strength", "vector", "rows"), (*strengths, vector, rows), strict=True
        ):
            object.__setattr__(self, field, value)

    def delta(self, strength: float) -> np.ndarray:
        """`strength * vector`, in the vector's own shape.

        Raises:
            DirectionError: if the strength or the result is not finite.
        """
        with np.errstate(over="ignore"):
            delta = self.vector.astype(np.float64) * finite_strength(self.name, strength)
            delta = delta.astype(np.float32)
        if not np.isfinite(delta).all():
            raise DirectionError(f"strength {strength} of {self.name} is too large")
        return delta

    def coordinate(self, code: np.ndarray) -> float:
        """The distance of a code from the mean code along the vector, in units of strength.

        GANSpace's published edits set this coordinate: `delta(target - coordinate(code))`. As published, it is that of
        the code's first row, whichever rows are edited.

        Args:
            code: D in W, or N x D in W+.

        Raises:
            DirectionError: if the direction has no `origin`, or the code does not fit.
        """
        if self.origin is None:
            raise DirectionError(f"direction {self.name} does not say where the mean code lies along it")
        code = np.asarray(code, np.float64)
        if code.ndim not in (1, 2) or code.shape[-1:] != self.vector.shape:
            raise DirectionError(f"direction {self.name} is {self.extent} and the code has shape {code.shape}")
        vector = self.vector.astype(np.float64)
        return float(np.atleast_2d(code)[0] @ vector / (vector @ vector) - self.origin)

    @property
    def extent(self) -> str:
        """The vector's space and size, in words."""
        if self.space == "w+":
            return "{} rows of {} in w+".format(*self.vector.shape)
        rows = f" on rows {self.rows[0]} to {self.rows[1] - 1}" if self.rows else ""
        return f"{self.vector.size} {'style channels' if self.space == 's' else 'values'} in {self.space}{rows}"

    def to_bytes(self) -> bytes:
        """A safetensors file with tensor `vector` and the other fields as metadata."""
        fields = (*_TEXT_FIELDS, "min_strength", "max_strength", "rows", "origin")
        metadata = {name: getattr(self, name) for name in fields}
        return tensors.dump({"vector": self.vector}, _METADATA, metadata)

    @classmethod
    def from_bytes(cls, data: bytes, file: str = "direction") -> Self:
        """Inverse of `to_bytes`; `file` names it in messages.

        Raises:
            DirectionError: if it is not a direction.
        """
        if what := remedy(data[:LENGTH]):
            raise DirectionError(f"{file} is not an edit direction: it {what}")
        try:
            arrays, metadata = tensors.parse(data, _METADATA)
            if list(arrays) != ["vector"] or arrays["vector"].dtype != np.float32:
                raise ValueError("it does not hold one float32 tensor named vector")
            return cls(**metadata, vector=arrays["vector"])
        except (TypeError, ValueError, DirectionError) as error:
            # A header in JSON follows eight bytes in every safetensors file.
            hint = "" if data[8:9] == b"{" else "; `edgedit import direction` makes directions of published files"
            raise DirectionError(f"{file} is not an edit direction: {error}{hint}") from error

    def save(self, path: str | Path) -> None:
        """Writes `to_bytes`.

        Raises:
            OutputError: if it cannot be written.
        """
        write(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what `save` wrote.

        Raises:
            DirectionError: if it cannot be read or is not a direction.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise DirectionError(f"cannot read {path}: {error.strerror or error}") from error
        return cls.from_bytes(data, str(path))


def finite_strength(name: str, value: float) -> float:
    """A strength as a float.

    Raises:
        DirectionError: if it is not a finite number; `name` is the direction's in the message.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise DirectionError(f"strength of {name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DirectionError(f"strength of {name} must be finite, got {value}")
    return number


def row_range(what: str, rows: tuple[int, int]) -> tuple[int, int]:
    """A range of rows as (first, one past last).

    Raises:
        DirectionError: if it is not that; `what` names whose rows they are.
    """
    whole = isinstance(rows, tuple | list | np.ndarray) and len(rows) == 2
    whole = whole and all(isinstance(row, numbers.Integral) and not isinstance(row, bool) for row in rows)
    if not whole or not 0 <= rows[0] < rows[1]:
        raise DirectionError(f"{what}: rows must be (first, one past last), got {rows!r}")
    return (int(rows[0]), int(rows[1]))


def load_directions(bundle: BundleContents) -> dict[str, Direction]:
    """All directions of a bundle by name, in the manifest's order.

    Raises:
        BundleError: if a file is missing or damaged.
        DirectionError: if a file is not a direction of that name.
    """
    directions = {}
    for name in bundle.manifest.directions:
        file = direction_file(name)
        direction = Direction.from_bytes(bundle.read(file), f"{bundle.name}: {file}")
        if direction.name != name:
            raise DirectionError(f"{bundle.name}: {file} holds the direction {direction.name!r}")
        directions[name] = direction
    return directions
