"""The part of `edit_session` apart from Triton: handles, edits as JSON, the sum of directions, the cache of inversions.

Needs NumPy and the standard library alone, since it is copied into the model's version folder (see the package).
`serving.contract` takes its limits and `handle_of` from here, so that both sides of the wire have them from one place.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

MAX_EDITS = 16
"""Directions in one request."""

MAX_EDITS_BYTES = 4096
"""Bytes of the JSON of `edits`."""

CACHE_BYTES = 256 * 2**20
"""Bytes that inversions may take unless the parameter `cache_bytes` says otherwise."""

HANDLE_DIGITS = 32

SESSION_FILE = "session.json"
DELTA_W_FILE = "delta_w.npy"
STYLE_DELTA_FILE = "style_delta.npy"


class EditsError(ValueError):
    """Edits that cannot be done; one line for the client, without paths."""


def handle_of(crop: np.ndarray, bundle_digest: str) -> str:
    """The handle of an aligned face: the first 32 hexadecimal digits of a SHA-256.

    Args:
        crop: uint8 h x w x 3, RGB.
        bundle_digest: SHA-256 of the bundle's manifest in hexadecimal digits, so that another model's inversion of
            the same face has another handle.

    Raises:
        ValueError: for another dtype or shape.
    """
    if not isinstance(crop, np.ndarray) or crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[2] != 3:
        raise ValueError("a handle is of a uint8 h x w x 3 image")
    digest = hashlib.sha256(f"{bundle_digest}\n{crop.shape[0]}x{crop.shape[1]}\n".encode())
    digest.update(np.ascontiguousarray(crop).data)
    return digest.hexdigest()[:HANDLE_DIGITS]


def parse_edits(text: bytes | str) -> dict[str, float]:
    """Reads {"smile": 2, "age": -1.5}: at most 16 directions, finite strengths, in the order given.

    Raises:
        EditsError: for anything else.
    """
    raw = text.encode() if isinstance(text, str) else bytes(text)
    if len(raw) > MAX_EDITS_BYTES:
        raise EditsError(f"edits are {len(raw)} bytes of JSON; {MAX_EDITS_BYTES} are allowed")
    try:
        pairs = json.loads(raw.decode(), object_pairs_hook=_Pairs, parse_constant=_no_constant)
    except EditsError:
        raise
    except (ValueError, RecursionError):
        raise EditsError('edits are not JSON such as {"smile": 2}') from None
    if not isinstance(pairs, _Pairs):
        raise EditsError('edits must be a JSON object such as {"smile": 2}')
    if len(pairs) > MAX_EDITS:
        raise EditsError(f"edits name {len(pairs)} directions; {MAX_EDITS} are allowed")
    edits: dict[str, float] = {}
    for name, value in pairs:
        if name in edits:
            raise EditsError(f"direction {_shown(name)} is given twice; give one strength for it")
        edits[name] = _finite(name, value)
    return edits


class _Pairs(list):
    """A JSON object as it was written, so that a name given twice is seen."""


def _no_constant(name: str) -> float:
    raise EditsError(f"strengths must be finite numbers, not {name}")


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EditsError(f"strength of {_shown(name)} must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise EditsError(f"strength of {_shown(name)} must be finite")
    return number


def _shown(name: str) -> str:
    """A client's text for a message: short, quoted, printable."""
    return ascii(name if len(name) <= 64 else name[:61] + "...")


class Units:
    """The directions of a bundle, by the order of their names: the change by one unit of strength.

    Args:
        delta_w: K x N x D float32, added to the W+ codes.
        style_delta: K x T float32, added to the styles.
    """

    def __init__(self, names: Iterable[str], delta_w: np.ndarray, style_delta: np.ndarray) -> None:
        self.names = list(names)
        if not len(self.names) == len(delta_w) == len(style_delta):
            raise ValueError("there is not one unit per direction")
        self._index = {name: k for k, name in enumerate(self.names)}
        self._delta_w, self._style_delta = delta_w, style_delta

    @classmethod
    def load(cls, folder: Path) -> Units:
        """Reads the files that the repository's writer put beside model.py."""
        names = json.loads((folder / SESSION_FILE).read_text())["directions"]
        arrays = [np.load(folder / file, allow_pickle=False) for file in (DELTA_W_FILE, STYLE_DELTA_FILE)]
        return cls(names, *arrays)

    def resolve(self, edits: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Adds up directions, each times its strength: delta_w N x D and style_delta T, float32.

        To the bit what `engines.directions.resolve` gives: each direction's product is rounded to float32, and those
        are added in float64 in the order given.

        Raises:
            EditsError: for an unknown direction (the message names close ones), or strengths that are too large.
        """
        # Every name first: a misspelt one costs no arithmetic.
        chosen = [(self._find(name), name, strength) for name, strength in edits.items()]
        sums = [np.zeros(units.shape[1:], np.float64) for units in (self._delta_w, self._style_delta)]
        with np.errstate(over="ignore"):
            for k, name, strength in chosen:
                for total, units in zip(sums, (self._delta_w, self._style_delta), strict=True):
                    delta = (units[k].astype(np.float64) * strength).astype(np.float32)
                    if not np.isfinite(delta).all():
                        raise EditsError(f"strength {strength:g} of {name} is too large")
                    total += delta
            delta_w, style_delta = (total.astype(np.float32) for total in sums)
        if not (np.isfinite(delta_w).all() and np.isfinite(style_delta).all()):
            raise EditsError("these strengths together are too large")
        return delta_w, style_delta

    def _find(self, name: str) -> int:
        if name in self._index:
            return self._index[name]
        close = difflib.get_close_matches(name.lower(), sorted(self.names), n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(self.names)[:8])}"
        raise EditsError(f"unknown direction {_shown(name)}; {hint}")


class Cache:
    """The inversions that were used last, bounded in bytes. Not for several threads.

    An inversion larger than the bound is not kept at all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._held: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, handle: str) -> bool:
        return handle in self._held

    def get(self, handle: str) -> Any | None:
        """The value held under a handle, which is then the last used; None if there is none."""
        if handle not in self._held:
            return None
        self._held.move_to_end(handle)
        return self._held[handle][0]

    def put(self, handle: str, value: Any, size: int) -> None:
        """Holds `value`, of `size` bytes, and drops what was not used for longest until all fit."""
        if handle in self._held:
            self.bytes -= self._held.pop(handle)[1]
        if size > self.limit:
            return
        self._held[handle] = (value, size)
        self.bytes += size
        while self.bytes > self.limit:
            _, (_, freed) = self._held.popitem(last=False)
            self.bytes -= freed
