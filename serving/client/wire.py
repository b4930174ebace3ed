"""The requests, answers and configuration of `edit_session`, without any I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from engines.directions import within_range
from serving.client.errors import RequestError, ServingError
from serving.client.regions import Region
from serving.contract import BUNDLE_SHA256, DIRECTIONS, EDIT_SESSION, HANDLE, IMAGE, handle_of
from serving.models.edit_session.session_core import EditsError, parse_edits

MAX_STEPS = 10_000
"""The most frames of a sweep."""


@dataclass(frozen=True)
class DirectionInfo:
    """One of a server's directions."""

    name: str
    min_strength: float
    """Strengths outside [min_strength, max_strength] are known to break the image or the identity."""
    max_strength: float
    description: str


@dataclass(frozen=True)
class Profile:
    """A server's model."""

    shape: tuple[int, int]
    """Height and width of its images."""
    directions: Mapping[str, DirectionInfo]
    bundle_sha256: str = ""
    """The digest of its bundle, which handles are made with; "" if it does not say."""

    def handle(self, crop: np.ndarray) -> str:
        """The server's handle of the inversion of a face, uint8 h x w x 3; "" if it cannot be known."""
        return handle_of(crop, self.bundle_sha256) if self.bundle_sha256 else ""


@dataclass(frozen=True, eq=False)
class Request:
    """One inference of `edit_session`."""

    shape: tuple[int, int]
    image: np.ndarray | None = None
    """uint8 h x w x 3, the face to invert."""
    handle: str | None = None
    edits: str | None = None
    """JSON; None asks for no image."""
    image_handle: str = ""
    """The handle that the image's inversion will have; "" if it cannot be known."""

    @property
    def home(self) -> str:
        """The handle by which a balancer finds the server that holds the inversion; "" if any will do."""
        return self.handle or self.image_handle

    @property
    def image_bytes(self) -> int:
        """Bytes of an image."""
        return self.shape[0] * self.shape[1] * 3


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer: the handle where an image was sent, an image where edits were."""

    handle: str
    """The handle; "" without one."""
    image: np.ndarray
    """uint8 h x w x 3, the caller's own; 0 x 0 x 3 without one."""


def edits_json(edits: Mapping[str, float]) -> str:
    """Strengths by direction as the server reads them.

    Raises:
        RequestError: for what the server would refuse without looking at its directions.
    """
    plain: dict[str, float] = {}
    for name, strength in edits.items():
        if not isinstance(name, str):
            raise RequestError(f"directions are named by text, got {name!r}")
        if not isinstance(strength, Real) or isinstance(strength, bool | np.bool_):
            raise RequestError(f"strength of {name} must be a number, got {strength!r}")
        try:
            plain[name] = float(strength)
        except OverflowError:
            raise RequestError(f"strength of {name} must be finite, got {strength}") from None
    text = json.dumps(plain)
    try:
        parse_edits(text)
    except EditsError as error:
        raise RequestError(str(error)) from None
    return text


def merged(edits: Mapping[str, float] | None, strengths: Mapping[str, float]) -> dict[str, float]:
    """Edits given as a mapping and as keywords; a RequestError for a direction given twice, or no mapping."""
    if edits is not None and not isinstance(edits, Mapping):
        raise RequestError(f"edits are strengths by direction, such as {{'smile': 2}}, got {edits!r}")
    both = dict(edits or {})
    for name, strength in strengths.items():
        if name in both:
            raise RequestError(f"direction {name!r} is given twice; give one strength for it")
        both[name] = strength
    return both


def strengths_between(direction: str, start: float, stop: float, steps: int) -> list[float]:
    """The strengths of a sweep, from `start` to `stop`, both included.

    Raises:
        RequestError: for arguments that cannot be.
    """
    if isinstance(steps, bool) or not isinstance(steps, Integral) or not 1 <= steps <= MAX_STEPS:
        raise RequestError(f"steps must be a number from 1 to {MAX_STEPS}, got {steps!r}")
    for strength in (start, stop):
        edits_json({direction: strength})
    return np.linspace(float(start), float(stop), int(steps)).tolist()


def within_ranges(profile: Profile, edits: Mapping[str, float], clamp: bool) -> dict[str, float]:
    """Strengths, limited to the directions' usable ranges if asked; unknown directions are left to the server.

    Warns:
        StrengthWarning: for a strength outside its direction's range, clamped or not.
    """
    limited = dict(edits)
    for name, strength in edits.items():
        if (known := profile.directions.get(name)) is not None:
            limited[name] = within_range(name, strength, known.min_strength, known.max_strength, clamp)
    return limited


def parse_profile(config: Mapping[str, Any]) -> Profile:
    """Reads the model configuration of `edit_session` as JSON, in either protocol's spelling.

    Raises:
        ServingError: if it is not that of an edgedit repository.
    """
    try:
        dims = next(one["dims"] for one in config["input"] if one["name"] == IMAGE)
        height, width, channels = (int(extent) for extent in dims)
        listed = json.loads(config["parameters"][DIRECTIONS]["string_value"])
        digest = config["parameters"].get(BUNDLE_SHA256, {}).get("string_value", "")
        directions = {
            name: DirectionInfo(
                name, float(one["min_strength"]), float(one["max_strength"]), str(one.get("description", ""))
            )
            for name, one in listed.items()
        }
        if channels != 3 or min(height, width) < 1:
            raise ValueError("not an image")
    except (KeyError, StopIteration, TypeError, ValueError, AttributeError) as error:
        raise ServingError(
            f"the server's {EDIT_SESSION} is not one that `edgedit serve repo` wrote; write the repository again"
        ) from error
    return Profile((height, width), directions, str(digest))


def read_answer(result: Any, request: Request, region: Region | None) -> Answer:
    """Reads tritonclient's InferResult, of either protocol; a ServingError if it is no answer to that request."""
    handle, image = "", np.empty((0, 0, 3), np.uint8)
    if request.image is not None:
        held = result.as_numpy(HANDLE)
        if held is None or held.size != 1:
            raise ServingError(f"the server's {EDIT_SESSION} gave no handle; write its repository again")
        value = held.reshape(-1)[0]
        handle = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    if request.edits is not None:
        wanted = (1, *request.shape, 3)
        if region is not None:
            pixels = region.read(request.image_bytes, request.image_bytes).reshape(wanted)
        else:
            pixels = result.as_numpy(IMAGE)
        if pixels is None or pixels.shape != wanted or pixels.dtype != np.uint8:
            given = "nothing" if pixels is None else f"{pixels.dtype} {pixels.shape}"
            raise ServingError(f"the server gave {given} instead of an image {wanted}; write its repository again")
        image = np.array(pixels[0])
    return Answer(handle, image)
