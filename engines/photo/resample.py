"""Resampling of photos to the size that an encoder takes, as matrices: one for each axis, of the filters by which the
methods were trained. The graphs of a bundle and the edit session take their weights from here.

Pillow's filters (`PIL.Image.Image.resize`) are interpolation kernels that are widened where the image shrinks, about
half-pixel centres, and cut at the border, where the rest is brought to a sum of 1 again.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Filter = Literal["area", "bilinear", "bicubic"]
"""Pillow's BOX, BILINEAR and BICUBIC. The area filter is for whole factors, whose blocks it takes the mean of; for
others, where it is no such mean, bilinear stands in for it."""


def whole(source: int, target: int) -> bool:
    """True if pixels of the target stand for as many whole pixels of the source each."""
    return source % target == 0


def resampling(source: int, target: int, kind: Filter) -> NDArray[np.float64]:
    """target x source matrix that resizes one axis; each row sums to 1."""
    scale = source / target
    centres = scale * (np.arange(target)[:, None] + 0.5)
    distance = np.abs(np.arange(source) + 0.5 - centres) / max(scale, 1.0)
    if kind == "area" and whole(source, target):
        weights = (distance < 0.5).astype(np.float64)
    elif kind == "bicubic":
        # Keys 1981, equation 4, with a = -1/2.
        inner, outer = (1.5 * distance - 2.5) * distance**2 + 1, ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
        weights = np.where(distance < 1, inner, np.where(distance < 2, outer, 0.0))
    else:
        weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def resize(images: np.ndarray, size: tuple[int, int], kind: Filter) -> np.ndarray:
    """Float32 B x C x h x w in [-1, 1] to B x C x `size`, as Pillow does but for its rounding to whole levels.

    Of photos that are not much higher than wide Pillow resizes the rows first. It cuts what a bicubic filter adds
    beyond black and white, after each axis.
    """
    height, width = images.shape[2:]
    for axis, (source, target) in ((3, (width, size[1])), (2, (height, size[0]))):
        if source == target:
            continue
        matrix = resampling(source, target, kind).astype(np.float32)
        images = images @ matrix.T if axis == 3 else matrix @ images
        if kind == "bicubic":
            images = images.clip(-1, 1)
    return images
