"""Edit directions: vectors in W, W+ or StyleSpace with a usable range, and their composition into one edit.

Kinds and their sources: InterFaceGAN (Shen et al. 2020: a vector in W or W+), GANSpace (Harkonen et al. 2020: a
principal component of W on a range of rows), StyleSpace (Wu et al. 2021: single style channels), StyleCLIP (Patashnik
et al. 2021: global directions in StyleSpace, vectors in W+).
"""

from __future__ import annotations

import difflib
import math
import numbers
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, get_args

import numpy as np

from engines import tensors
from engines.contracts import style_width
from engines.errors import DirectionError, StrengthWarning
from engines.family import ModelFamily
from engines.files import write
from engines.manifest import direction_file

if TYPE_CHECKING:
    from engines.bundle import Bundle

Kind = Literal["interfacegan", "ganspace", "stylespace", "styleclip"]
Space = Literal["w", "w+", "s"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_METADATA = "direction"
_TEXT_FIELDS = ("name", "kind", "space", "description", "source", "licence")


@dataclass(frozen=True, kw_only=True, eq=False)
class Direction:
    """One direction; an edit adds `strength * vector` to a code.

    The vector is float32 and read-only: (D,) in "w", where it is added to every W+ row or to `rows`; (N, D) in "w+";
    (T,) in "s", StyleSpace's concatenated styles (see `ModelFamily.style_channels`).

    Raises:
        DirectionError: at construction, if the fields do not fit together.
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
        strengths = [_finite(self.name, value) for value in (self.min_strength, self.max_strength)]
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
        rows = self.rows
        if rows is not None:
            integers = isinstance(rows, tuple | list) and [type(row) for row in rows] == [int, int]
            if self.space != "w" or not integers or not 0 <= rows[0] < rows[1]:
                raise DirectionError(
                    f"direction {self.name}: rows must be (first, one past last) of a direction in w, got {rows!r}"
                )
            rows = (rows[0], rows[1])
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
            delta = self.vector.astype(np.float64) * _finite(self.name, strength)
            delta = delta.astype(np.float32)
        if not np.isfinite(delta).all():
            raise DirectionError(f"strength {strength} of {self.name} is too large")
        return delta

    def to_bytes(self) -> bytes:
        """A safetensors file with tensor `vector` and the other fields as metadata."""
        metadata = {name: getattr(self, name) for name in (*_TEXT_FIELDS, "min_strength", "max_strength", "rows")}
        return tensors.dump({"vector": self.vector}, _METADATA, metadata)

    @classmethod
    def from_bytes(cls, data: bytes, file: str = "direction") -> Self:
        """Inverse of `to_bytes`; `file` names it in messages.

        Raises:
            DirectionError: if it is not a direction.
        """
        try:
            arrays, metadata = tensors.parse(data, _METADATA)
            if list(arrays) != ["vector"] or arrays["vector"].dtype != np.float32:
                raise ValueError("it does not hold one float32 tensor named vector")
            return cls(**metadata, vector=arrays["vector"])
        except (TypeError, ValueError, DirectionError) as error:
            raise DirectionError(f"{file} is not an edit direction: {error}") from error

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


@dataclass(frozen=True, eq=False)
class Edit:
    """What an edit adds to an inversion: delta_w (N, D) to the W+ codes, style_delta (T,) to the styles; float32."""

    delta_w: np.ndarray
    style_delta: np.ndarray


def _finite(name: str, value: float) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise DirectionError(f"strength of {name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DirectionError(f"strength of {name} must be finite, got {value}")
    return number


def _unknown(name: str, known: Iterable[str]) -> DirectionError:
    known = sorted(known)
    close = difflib.get_close_matches(name.lower(), known, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    some = f"{', '.join(known[:8])}{', ...' if len(known) > 8 else ''}" if known else "none"
    return DirectionError(f"unknown direction {name!r}; {hint}there are {some} (`edgedit info BUNDLE` lists all)")


def load_directions(bundle: Bundle) -> dict[str, Direction]:
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


def within_range(name: str, strength: float, low: float, high: float, clamp: bool) -> float:
    """A strength of a direction, limited to its usable range if asked.

    Warns:
        StrengthWarning: outside the range, clamped or not; it points at the caller's caller.
    """
    if low <= strength <= high:
        return strength
    limited = min(max(strength, low), high)
    what = f"using {limited:g}" if clamp else "expect artefacts"
    warnings.warn(
        f"strength {strength:g} of {name} is outside {low:g}..{high:g}; {what}", StrengthWarning, stacklevel=3
    )
    return limited if clamp else strength


def resolve(
    directions: Mapping[str, Direction],
    strengths: Mapping[str, float],
    family: ModelFamily,
    clamp: bool = False,
) -> Edit:
    """Adds up several directions, each times its strength.

    Args:
        directions: by name.
        strengths: by name; nothing at all gives a zero edit.
        family: the family of the inversion that will be edited.
        clamp: limit strengths to the directions' ranges.

    Raises:
        DirectionError: for an unknown direction (the message names close ones), a strength that is not finite, or a
            direction made for another family.

    Warns:
        StrengthWarning: for a strength outside its direction's range, clamped or not.
    """
    delta_w = np.zeros((family.w_rows, family.style_dim), np.float64)
    style_delta = np.zeros(style_width(family), np.float64)
    for name, asked in strengths.items():
        if name not in directions:
            raise _unknown(name, directions)
        direction, strength = directions[name], _finite(name, asked)
        low, high = direction.min_strength, direction.max_strength
        delta = direction.delta(within_range(name, strength, low, high, clamp))
        target = style_delta if direction.space == "s" else delta_w
        if direction.space == "w" and direction.rows is not None:
            target = delta_w[slice(*direction.rows)]
            short = len(target) != direction.rows[1] - direction.rows[0]
        else:
            short = False
        if short or delta.shape != (target.shape[-1:] if direction.space == "w" else target.shape):
            raise DirectionError(
                f"direction {name} has {delta.shape} values in {direction.space}"
                f"{f' on rows {direction.rows}' if direction.rows else ''} and does not fit family {family.name}"
            )
        target += delta
    with np.errstate(over="ignore"):
        edit = Edit(delta_w.astype(np.float32), style_delta.astype(np.float32))
    if not (np.isfinite(edit.delta_w).all() and np.isfinite(edit.style_delta).all()):
        raise DirectionError("these strengths together are too large")
    return edit


def parse_edits(items: Iterable[str]) -> dict[str, float]:
    """Reads ["smile:2", "age:-1"] as {"smile": 2.0, "age": -1.0}.

    Raises:
        DirectionError: for an item that is not NAME:STRENGTH with a finite number, or a direction given twice.
    """
    edits: dict[str, float] = {}
    for item in items:
        name, colon, text = (part.strip() for part in item.rpartition(":"))
        try:
            strength = float(text) if colon and name else math.nan
        except ValueError:
            strength = math.nan
        if not math.isfinite(strength):
            raise DirectionError(f"edit {item!r} is not NAME:STRENGTH, such as smile:2 or age:-1.5")
        if name in edits:
            raise DirectionError(f"direction {name!r} is given twice; give one strength for it")
        edits[name] = strength
    return edits
