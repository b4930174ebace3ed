"""Several directions added up into one edit: strengths, masks and ramps over W+ rows, usable ranges."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from engines.contracts import style_width
from engines.directions.direction import Direction, finite_strength, row_range
from engines.errors import DirectionError, StrengthWarning, suggestion
from engines.family import ModelFamily


@dataclass(frozen=True, eq=False)
class Edit:
    """The change by an edit: delta_w (N, D) to the W+ codes, style_delta (T,) to the styles; float32."""

    delta_w: np.ndarray
    style_delta: np.ndarray


@dataclass(frozen=True)
class Strength:
    """A strength that acts on some W+ rows only, or more on some than on others.

    Early rows change pose and shape, late ones colour and texture. A style layer of StyleSpace counts as the row that
    it takes its style from (`ModelFamily.style_rows`). `Strength(2.0)` is the same as 2.0.

    Raises:
        DirectionError: at construction, for rows or a ramp that cannot be.

    Example:
        >>> editor = edgedit.Editor.load(bundle)
        >>> fading = edgedit.Strength(2.0, rows=(2, 8), ramp=(1, 0))
        >>> picture = editor.edit(editor.invert(photo), {"smile": fading})
    """

    value: float
    rows: tuple[int, int] | None = None
    """First and one-past-last row. None: all."""
    ramp: tuple[float, float] = (1.0, 1.0)
    """Share of the strength, 0..1, at the first and at the last of the rows; in between it changes linearly."""

    def __post_init__(self) -> None:
        if self.rows is not None:
            object.__setattr__(self, "rows", row_range("a strength", self.rows))
        ends = [finite_strength("a ramp", share) for share in self.ramp]
        if len(ends) != 2 or not all(0 <= share <= 1 for share in ends):
            raise DirectionError(f"a ramp has two shares of the strength, each 0 to 1, got {self.ramp!r}")
        object.__setattr__(self, "ramp", tuple(ends))

    def row_shares(self, family: ModelFamily) -> np.ndarray:
        """Share of the strength by W+ row, (N,) float64.

        Raises:
            DirectionError: if the family has fewer rows.
        """
        first, end = self.rows or (0, family.w_rows)
        if end > family.w_rows:
            raise DirectionError(
                f"rows {first} to {end - 1} are masked in and family {family.name} has {family.w_rows}, "
                f"0 to {family.w_rows - 1}"
            )
        shares = np.zeros(family.w_rows)
        shares[first:end] = np.linspace(*self.ramp, end - first)
        return shares


def pick(directions: Mapping[str, Direction], name: str) -> Direction:
    """The direction of that name.

    Raises:
        DirectionError: if there is none; the message names close ones.
    """
    if name in directions:
        return directions[name]
    known = sorted(directions)
    some = f"{', '.join(known[:8])}{', ...' if len(known) > 8 else ''}" if known else "none"
    raise DirectionError(
        f"unknown direction {name!r}; {suggestion(name, known)}there are {some} (`edgedit info -b BUNDLE` lists all)"
    )


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
    strengths: Mapping[str, float | Strength],
    family: ModelFamily,
    clamp: bool = False,
) -> Edit:
    """Adds up several directions, each times its strength.

    Args:
        strengths: by name, a number or a `Strength` with a mask over rows; nothing at all gives a zero edit.
        family: the family of the inversion that will be edited.
        clamp: limit strengths to the directions' ranges.

    Raises:
        DirectionError: for an unknown direction (the message names close ones), a strength that is not finite, a
            direction made for another family, or one that moves rows alone that this one's generator does not read.

    Warns:
        StrengthWarning: for a strength outside its direction's range, clamped or not.
    """
    delta_w = np.zeros((family.w_rows, family.style_dim), np.float64)
    style_delta = np.zeros(style_width(family), np.float64)
    for name, requested in strengths.items():
        direction = pick(directions, name)
        strength = finite_strength(name, requested.value if isinstance(requested, Strength) else requested)
        low, high = direction.min_strength, direction.max_strength
        delta = direction.delta(within_range(name, strength, low, high, clamp))
        first, end = direction.rows or (0, family.w_rows)
        target = style_delta if direction.space == "s" else delta_w[first:end]
        fits = delta.shape == (target.shape[-1:] if direction.space == "w" else target.shape)
        if end > family.w_rows or not fits:
            raise DirectionError(f"direction {name} is {direction.extent} and does not fit {needs(family)}")
        shares = requested.row_shares(family) if isinstance(requested, Strength) else np.ones(family.w_rows)
        if direction.space == "s":
            target += delta * np.repeat(shares[list(family.style_rows)], family.style_channels)
            continue
        change = delta * shares[first:end, None]
        if change.any() and not change[: max(0, family.rows_read - first)].any():
            raise DirectionError(
                f"direction {name} edits nothing: it moves rows from {family.rows_read} on alone, which the generator "
                f"of family {family.name} does not read"
            )
        target += change
    with np.errstate(over="ignore"):
        edit = Edit(delta_w.astype(np.float32), style_delta.astype(np.float32))
    if not (np.isfinite(edit.delta_w).all() and np.isfinite(edit.style_delta).all()):
        raise DirectionError("these strengths together are too large")
    return edit


def needs(family: ModelFamily) -> str:
    """The shape that a direction must have to fit a family, in words."""
    return (
        f"family {family.name}, which takes {family.style_dim} values in w, {family.w_rows} rows of {family.style_dim} "
        f"in w+, or {style_width(family)} style channels in s"
    )


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
