"""Arrays of the published methods -> directions. Which files hold them, and how they are read, is not known here.

- InterFaceGAN (Shen et al. 2020): a vector in W, or one per row of W+.
- GANSpace (Harkonen et al. 2020): mean, components and standard deviations of W; an edit adds a multiple of
  component * deviation to some rows.
- StyleSpace (Wu et al. 2021): single channels of S, in standard deviations of the channel.
- StyleCLIP's global directions (Patashnik et al. 2021, section 6): the relevance of each channel to a text, cut off
  below beta, divided by the largest, times the channel's standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from engines.contracts import style_width
from engines.directions.compose import needs
from engines.directions.direction import Direction, row_range
from engines.directions.recipes import Channels
from engines.errors import DirectionError
from engines.family import FAMILIES, ModelFamily

PCA_KEYS = ("mean", "comp", "std")
"""The names in encoder4editing's files."""
_OWN_KEYS = ("act_mean", "act_comp", "act_stdev")
"""The names in GANSpace's own files, for the layer that was analysed: W, or the file does not fit."""


@dataclass(frozen=True, kw_only=True)
class About:
    """Facts that no array says about its direction; see `Direction`."""

    name: str
    min_strength: float
    max_strength: float
    description: str
    source: str
    licence: str


def _array(what: str, value: np.ndarray) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise DirectionError(f"{what} is not made of finite numbers")
    return array


def _shape(array: np.ndarray) -> str:
    return f"({', '.join(map(str, array.shape))})"


def interfacegan(array: np.ndarray, family: ModelFamily, about: About) -> Direction:
    """A direction in W or W+.

    Args:
        array: D in W; N x D or N * D in W+; with axes of length 1 anywhere.

    Raises:
        DirectionError: if it is none of these for the family; the message says which space and rows it has.
    """
    array = _array("the direction", array)
    rows, width = family.w_rows, family.style_dim
    shape = array.squeeze().shape
    units = "the file's vector"
    if shape == (width,):
        return Direction(kind="interfacegan", space="w", vector=array.reshape(-1), units=units, **asdict(about))
    if shape in ((rows, width), (rows * width,)):
        vector = array.reshape(rows, width)
        return Direction(kind="interfacegan", space="w+", vector=vector, units=units, **asdict(about))
    held = f"an array of shape {_shape(array)}"
    fitting = [f.name for f in FAMILIES.values() if array.shape[-2:] == (f.w_rows, f.style_dim)]
    if array.ndim in (2, 3) and (fitting or array.shape[-1] == width) and array.size == np.prod(array.shape[-2:]):
        held = f"{array.shape[-2]} rows of {array.shape[-1]} in w+"
    elif array.shape[-1:] == (array.size,):
        held = f"{array.size} values in w"
        if array.size == style_width(family):
            held = f"{array.size} style channels in s, which is not a space of InterFaceGAN"
    made_for = f", as {' and '.join(fitting)} {'have' if len(fitting) > 1 else 'has'}" if fitting else ""
    raise DirectionError(f"the file holds {held}{made_for}; it does not fit {needs(family)}")


def ganspace(
    pca: Mapping[str, np.ndarray], family: ModelFamily, component: int, rows: tuple[int, int] | None, about: About
) -> Direction:
    """Component * deviation on some rows, with the coordinate of the mean code.

    Args:
        pca: mean (D), comp (C x D) and std (C), with axes of length 1 anywhere, under these names or GANSpace's own.
        component: 0..C-1.
        rows: first and one-past-last W+ row, None for all.

    Raises:
        DirectionError: if an array is missing or misshaped, or the component or the rows are not there.
    """
    keys = _OWN_KEYS if any(key in pca for key in _OWN_KEYS) else PCA_KEYS
    if missing := [key for key in keys if key not in pca]:
        raise DirectionError(f"the file has no {missing[0]}; a GANSpace file holds {', '.join(keys)}")
    mean, components, deviations = (_array(key, pca[key]).astype(np.float64) for key in keys)
    width, count = family.style_dim, deviations.size
    for key, array, size in ((keys[0], mean, width), (keys[1], components, count * width)):
        if array.size != size or array.squeeze().shape[-1:] != (width,):
            raise DirectionError(
                f"{key} has shape {_shape(array)} beside {count} deviations and does not fit {needs(family)}"
            )
    if not 0 <= component < count:
        raise DirectionError(f"there is no component {component}; the file has {count}, 0 to {count - 1}")
    if rows is not None:
        rows = row_range("GANSpace", rows)
        if rows[1] > family.w_rows:
            raise DirectionError(
                f"rows {rows[0]} to {rows[1] - 1} are not all in family {family.name}, which has {family.w_rows}, "
                f"0 to {family.w_rows - 1}"
            )
    vector = components.reshape(count, width)[component] * deviations.reshape(-1)[component]
    if not vector.any():
        raise DirectionError(f"component {component} is zero")
    return Direction(
        kind="ganspace",
        space="w",
        vector=vector,
        rows=rows,
        units="standard deviations of the component",
        origin=float(mean.reshape(-1) @ vector / (vector @ vector)),
        **asdict(about),
    )


def style_index(family: ModelFamily, layer: int, channel: int) -> int:
    """The index of a StyleSpace channel in the concatenated styles.

    Args:
        layer: StyleSpace's number, which counts the ToRGB layers too (0..25 at 1024).
        channel: of that layer.

    Raises:
        DirectionError: if the family has no such layer or channel, or its generator is no StyleGAN2.
    """
    widths = family.style_channels
    if family.generator != "stylegan2":
        raise DirectionError(
            "style layers and channels are numbered as StyleGAN2 has them; the generator of family "
            f"{family.name} is another, whose {sum(widths)} channels are others"
        )
    if not 0 <= layer < len(widths):
        raise DirectionError(
            f"there is no style layer {layer} in family {family.name}, which has {len(widths)}, 0 to {len(widths) - 1}"
        )
    if not 0 <= channel < widths[layer]:
        raise DirectionError(
            f"there is no channel {channel} in style layer {layer} of family {family.name}, which has "
            f"{widths[layer]}, 0 to {widths[layer] - 1}"
        )
    return sum(widths[:layer]) + channel


def style_deviations(statistics: Sequence[Sequence[np.ndarray]], family: ModelFamily) -> np.ndarray:
    """Standard deviation of each style channel, (T,) float64.

    Args:
        statistics: means and deviations, each a list of one array per style layer, ToRGB included.

    Raises:
        DirectionError: if they are of another family, or a deviation is negative.
    """
    if len(statistics) != 2 or any(isinstance(part, np.ndarray) for part in statistics):
        raise DirectionError("style statistics are two lists, the means and the deviations of each style layer")
    widths = [tuple(np.size(layer) for layer in part) for part in statistics]
    for layers in widths:
        if layers != family.style_channels:
            fitting = [f.name for f in FAMILIES.values() if f.style_channels == layers]
            made_for = f", as {' and '.join(fitting)} has" if fitting else ""
            raise DirectionError(
                f"the statistics have {len(layers)} style layers with {sum(layers)} channels{made_for}; family "
                f"{family.name} has {len(family.style_channels)} with {style_width(family)}"
            )
    deviations = np.concatenate([_array("a deviation", layer).reshape(-1) for layer in statistics[1]])
    if (deviations < 0).any():
        raise DirectionError("the statistics hold a negative deviation")
    return deviations.astype(np.float64)


def stylespace(channels: Channels, family: ModelFamily, unit: np.ndarray | float, about: About) -> Direction:
    """A direction that moves some channels of S together.

    Args:
        channels: (layer, channel) each.
        unit: what a strength of 1 adds: the deviation of each channel from `style_deviations`, or one number.

    Raises:
        DirectionError: if there is no channel, one that the family lacks, one twice, or one that the unit leaves still.
    """
    indices = [style_index(family, *channel) for channel in channels]
    if not indices or len(set(indices)) < len(indices):
        raise DirectionError("give at least one style channel, and none twice")
    vector = np.zeros(style_width(family))
    vector[indices] = np.broadcast_to(unit, vector.shape)[indices]
    if not np.isfinite(vector).all():
        raise DirectionError(f"the unit must be a finite number, got {unit}")
    still = [f"{layer}:{channel}" for (layer, channel), at in zip(channels, indices, strict=True) if not vector[at]]
    if still:
        why = "the statistics give no deviation" if np.ndim(unit) else "a unit of 0"
        raise DirectionError(f"style {', '.join(still)} would not move: {why}; leave it out, or give another unit")
    units = "standard deviations of the channel" if np.ndim(unit) else f"{float(unit):g} in the style"
    return Direction(kind="stylespace", space="s", vector=vector, units=units, **asdict(about))


def styleclip_global(
    relevance: np.ndarray, text: np.ndarray, deviations: np.ndarray, family: ModelFamily, beta: float, about: About
) -> tuple[Direction, int]:
    """StyleCLIP's global direction for a text.

    Args:
        relevance: K x E, the CLIP direction of each channel of the convolutions, ToRGB left out (6,048 x 512 at 1024).
        text: E or 1 x E, the CLIP embedding of the target text less that of the neutral one; made unit length here.
        deviations: from `style_deviations`.
        beta: channels whose relevance to the text is smaller are left alone; larger is more disentangled.

    Returns:
        The direction, and how many channels it moves.

    Raises:
        DirectionError: if the arrays do not fit each other or the family, or no channel is relevant enough.
    """
    relevance, text = _array("the channel matrix", relevance), _array("the text direction", text)
    widths = family.style_channels
    moved = np.concatenate([np.full(width, layer not in family.rgb_layers) for layer, width in enumerate(widths)])
    if relevance.ndim != 2 or len(relevance) != moved.sum():
        raise DirectionError(
            f"the channel matrix has shape {_shape(relevance)}; family {family.name} takes {moved.sum()} rows, one for "
            "each style channel of its convolutions (ToRGB left out)"
        )
    if text.size != text.shape[-1] or text.size != relevance.shape[1]:
        raise DirectionError(
            f"the text direction has shape {_shape(text)} and the channel matrix {_shape(relevance)}; the text takes "
            f"{relevance.shape[1]} values"
        )
    if not np.any(text) or not 0 <= beta < np.inf:
        raise DirectionError(f"the text direction must not be zero, nor beta negative, got beta {beta}")
    unit = text.reshape(-1).astype(np.float64)
    scores = relevance.astype(np.float64) @ (unit / np.linalg.norm(unit))
    largest = np.abs(scores).max()
    scores[np.abs(scores) < beta] = 0
    if not scores.any():
        raise DirectionError(f"no channel reaches beta {beta:g}: the largest relevance is {largest:.3g}")
    vector = np.zeros(len(moved))
    vector[moved] = scores / largest * deviations[moved]
    units = "standard deviations of the most relevant channel"
    direction = Direction(kind="styleclip", space="s", vector=vector, units=units, **asdict(about))
    return direction, int(np.count_nonzero(vector))
