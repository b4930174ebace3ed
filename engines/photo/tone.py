"""A photo's own light and colours, which the model's change has to follow when it is put back.

Models are trained on faces in colour and in ordinary light. Two kinds of photo are told apart from those here: toned
ones, whose colours all lie on one line (black-and-white, sepia, tinted scans), and ones whose face is darker than
nearly all that models are trained on. The limits were measured on every fourth to every sixth face of the training
data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatArray = NDArray[np.float32]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in the luminance of ITU-R BT.601, which is JPEG's."""
CELLS = 16
"""The colours of a face are read on a grid of that many cells a side, over which JPEG's noise in them averages out."""
LIGHTS = np.arange(-128, 512, dtype=np.float32)
"""The luminances that points of a photo's line would have, were no channel cut off at 0 or 255."""
KNOTS = (0.25, 0.5, 0.75)
"""The places where the line may bend: quantiles of the face's luminance."""
CLIPPED = (2, 253)
"""Values up to the first and from the second on may have been cut off, and say nothing of the photo's line."""
DARK = (95.0, 112.0)
"""A face is dark below the second of these levels, and fully up to the first: those which 5 and 2 % of the faces of the
training data do not reach."""
LIGHT = 192.0
"""The level that a dark face is brought to, the median of the same faces."""
BRIGHTEST = 0.9
"""The level of a face is that which this share of its pixels do not exceed."""
DARKEST = 6.0
"""The level that darker faces count as: so few levels hold no face that could be brought to light."""
SHADE = 0.25
"""Darker photos have colours as near to each other as JPEG's noise: limits shrink with the light down to this share."""
CONTRAST = 69.0
"""The span of the cells' luminances, between a tenth and nine tenths of them, below which a photo is faded and limits
shrink too; three quarters of the faces of the training data have more."""
LINE_SPREAD = 1.5
"""Levels around the line, of a face as light as `LIGHT`, up to which a photo is toned. Those of the training data have
up to 1.5, sepia as JPEG of quality 50 has about 1, and photos in colour have 1.75 and more."""
LINE_SHARE = 0.035
"""A limit of that spread too, where it is larger: this share of the colours' distance from grey, to which JPEG's noise
in strong colours is in proportion. The least of photos in colour is 0.056."""
GREY = 1.0
"""Levels (root mean square) that the colours of a black-and-white photo are off grey by."""
GREY_NOISE = 8
"""Levels that the channels of a pixel of a grey photo may differ by for noise; a pixel with more has a colour."""
GREY_BLOCK = 4
"""Levels that the channels of a block's mean may differ by in a photo that is black-and-white throughout."""
SAMPLED = 256
"""The tone is read from that many rows and columns of a face at the least, evenly spaced."""
BLOCK = 8
"""Side, in pixels, of the blocks over which a whole photo is looked at for colour; JPEG's."""


@dataclass(frozen=True, eq=False)
class Tone:
    """The way of a face's change from the model's light and colours to the photo's."""

    gain: float = 1.0
    """The factor that the photo is multiplied by for the model; the change is divided by it."""
    line: FloatArray | None = None
    """N x 3: the colours, in levels, of a toned photo at `LIGHTS`; None for a photo in colour."""

    @cached_property
    def grey(self) -> bool:
        """True if the photo is black-and-white."""
        return self.line is not None and bool((self.line == self.line[:, :1]).all())

    @property
    def plain(self) -> bool:
        """True if light and colours are the model's."""
        return self.gain == 1 and self.line is None

    def lift(self, pixels: NDArray[np.generic]) -> FloatArray:
        """Pixels in the model's light: levels in, levels out, of the same shape."""
        return np.minimum(pixels.astype(np.float32) * np.float32(self.gain), np.float32(255))

    def crop(self, face: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A face, uint8 S x S x 3, as the model takes it."""
        return face if self.gain == 1 else np.rint(self.lift(face)).astype(np.uint8)

    def clean(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of a photo, uint8 H x W x 3; one that is black-and-white up to noise has equal channels."""
        if not self.grey or (np.ptp(np.asarray(Image.fromarray(pixels).reduce(BLOCK)), axis=2) > GREY_BLOCK).any():
            return pixels.copy()
        return np.rint(pixels @ LUMA).astype(np.uint8)[:, :, None].repeat(3, axis=2)

    def changed(self, pixels: FloatArray, change: FloatArray, mask: FloatArray) -> FloatArray:
        """Pixels of the photo with a change of the model's made to them.

        Args:
            pixels: H x W x 3, levels of the photo.
            change: H x W x 3, levels in the model's light.
            mask: H x W, the weight of the change, in [0, 1].

        Returns:
            H x W x 3, levels, not limited; where the mask is 0, the pixels.
        """
        if self.gain != 1:
            change = change / np.float32(self.gain)
        if self.line is None:
            return (pixels + mask[:, :, None] * change).astype(np.float32, copy=False)
        luminance = pixels @ LUMA
        brighter = mask * (change @ LUMA)
        if self.grey:
            flat = (np.ptp(pixels, axis=2) <= GREY_NOISE) & (mask > 0)
            base = np.where(flat[:, :, None], luminance[:, :, None], pixels)
            return (base + brighter[:, :, None]).astype(np.float32, copy=False)
        light = self._light(luminance)
        return pixels + self._at(light + brighter) - self._at(light)

    def shown(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture of the model's, uint8 S x S x 3, in the light and colours of a photo of which no more is known.

        A black-and-white one has equal channels. What the model's light cuts off at 255, as lamps behind a dark face,
        is as dark as the rest and comes back only with the photo (`changed`).
        """
        if self.plain:
            return picture
        levels = picture / np.float32(self.gain)
        if self.line is None:
            return np.rint(levels).astype(np.uint8)
        luminance = levels @ LUMA
        if self.grey:
            return np.rint(luminance).astype(np.uint8)[:, :, None].repeat(3, axis=2)
        return np.rint(self._at(self._light(luminance))).clip(0, 255).astype(np.uint8)

    def to_json(self) -> dict[str, Any]:
        """The values that `from_json` reads, exactly."""
        return {"gain": float(self.gain), "line": None if self.line is None else self.line.tolist()}

    @classmethod
    def from_json(cls, data: Any) -> Tone:
        """Reads what `to_json` gives.

        Raises:
            ValueError: if it is not a tone.
        """
        try:
            gain, line = float(data["gain"]), data["line"]
            line = None if line is None else np.array(line, np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("it has no light and colours that can be read") from error
        if not 1 <= gain <= LIGHT / DARKEST or (
            line is not None and (line.shape != (len(LIGHTS), 3) or not np.isfinite(line).all())
        ):
            raise ValueError("it has light and colours that no photo has")
        return cls(gain, line)

    def _light(self, luminance: NDArray[np.floating]) -> NDArray[np.floating]:
        """The place on the line of colours of a luminance."""
        assert self.line is not None
        return np.interp(luminance, np.maximum.accumulate(self.line @ LUMA), LIGHTS)

    def _at(self, light: NDArray[np.floating]) -> FloatArray:
        assert self.line is not None
        return np.stack([np.interp(light, LIGHTS, channel) for channel in self.line.T], axis=-1).astype(np.float32)


PLAIN = Tone()
"""The light and colours of the model."""


def read_tone(face: NDArray[np.uint8]) -> Tone:
    """The tone of an aligned face, uint8 S x S x 3."""
    step = max(1, len(face) // SAMPLED)
    face = face[::step, ::step]
    level = _level(face)
    share = min(max((DARK[1] - level) / (DARK[1] - DARK[0]), 0.0), 1.0)
    gain, line = (LIGHT / level) ** share, _line(face, level)
    return Tone(gain, line) if gain > 1 or line is not None else PLAIN


def _level(face: NDArray[np.uint8]) -> float:
    """The lightness of a face, in levels: that of brightly lit skin."""
    height, width = face.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    skin = np.square((x / width - 0.5) / 0.2) + np.square((y / height - 0.575) / 0.25) < 1
    return max(float(np.quantile(face[skin] @ LUMA, BRIGHTEST)), DARKEST)


def _line(face: NDArray[np.uint8], level: float) -> FloatArray | None:
    """The line of a toned face, or None: red, green and blue, each piecewise linear in luminance, by least squares."""
    x, y = np.meshgrid(*[(np.arange(CELLS) + 0.5) / CELLS * 2 - 1] * 2)
    inside = np.square(x / 0.6) + np.square((y - 0.05) / 0.7) < 1
    pixels = face.astype(np.float32)
    means = _means(pixels, np.ones(face.shape[:2], np.float32), inside)
    if np.sqrt(np.square(means - (means @ LUMA)[:, None]).mean()) <= GREY * max(level / LIGHT, SHADE):
        return np.repeat(LIGHTS[:, None], 3, axis=1)
    unclipped = np.all((face > CLIPPED[0]) & (face < CLIPPED[1]), axis=2)
    luminance = pixels @ LUMA
    if unclipped.mean() < 1 / CELLS:
        return None
    knots = np.quantile(luminance[unclipped], KNOTS)

    def terms(light: FloatArray) -> FloatArray:
        return np.stack([np.ones_like(light), light, *(np.maximum(light - knot, 0) for knot in knots)], axis=-1)

    # Means of the terms, not terms of the means: a cell may hold hair and skin.
    means = _means(np.concatenate([pixels, terms(luminance)], axis=2), unclipped.astype(np.float32), inside)
    colours, known = means[:, :3], means[:, 3:]
    if len(colours) < CELLS:
        return None
    slopes = np.linalg.lstsq(known, colours, rcond=None)[0]
    dark, bright = np.quantile(known[:, 1], [0.1, 0.9])
    shade = max(min(level / LIGHT, (bright - dark) / CONTRAST), SHADE)
    spread = np.sqrt(np.square(colours - known @ slopes).mean())
    colour = np.sqrt(np.square(colours - known[:, 1:2]).mean())
    if spread > max(LINE_SPREAD * shade, LINE_SHARE * colour):
        return None
    return np.clip(terms(LIGHTS) @ slopes, 0, 255).astype(np.float32)


def _means(planes: FloatArray, unclipped: FloatArray, inside: NDArray[np.bool_]) -> FloatArray:
    """Means, N x C, of H x W x C over the cells that are inside and of which more than half is unclipped."""
    weight, *cells = (
        np.asarray(Image.fromarray(plane).resize((CELLS, CELLS), Image.Resampling.BOX))
        for plane in (unclipped, *(unclipped * plane for plane in np.moveaxis(planes, 2, 0)))
    )
    inside = inside & (weight > 0.5)
    return np.stack([cell[inside] / weight[inside] for cell in cells], axis=1).astype(np.float32, copy=False)
