"""Published direction files -> directions: which files are known, what they hold, and what is made of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.directions import Direction, Kind, resolve
from engines.directions.published import About, ganspace, interfacegan, style_deviations, styleclip_global, stylespace
from engines.directions.recipes import CHANNELS, COMPONENTS, Channels
from engines.directions.recipes import recipe as find_recipe
from engines.errors import DirectionError
from engines.family import FACES_1024
from engines.family import family as find_family

_GUI = (-15.0, 25.0)
"""The strengths that StyleCLIP's own interface offers for a global direction."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of a user on a direction, in place of what is known of its file."""

    name: str | None = None
    range: tuple[float, float] | None = None
    """The usable strengths."""
    description: str | None = None
    source: str | None = None
    licence: str | None = None

    def about(self, name: str, description: str, known: Known | None, shown: tuple[float, float] | None) -> About:
        """The description of a direction for those who use it.

        Args:
            name, description: unless others were given; the name may be a file's, from which one is made.
            known: the official file it comes from.
            shown: strengths that were published.

        Raises:
            DirectionError: if its terms or its range are neither known nor given.
        """
        licence = self.licence or (known.licence if known else None)
        source = self.source or (known.source if known else "a file that edgedit does not know")
        strengths = self.range or shown
        if licence is None:
            raise DirectionError("this is not an official file that edgedit knows; say its terms with --licence")
        if strengths is None:
            raise DirectionError("no usable strengths are published for this; say them with --range LOW HIGH")
        return About(
            name=self.name or plain_name(name),
            min_strength=strengths[0],
            max_strength=strengths[1],
            description=self.description or description,
            source=source,
            licence=licence,
        )


@dataclass(frozen=True)
class Known:
    """An official file, recognised by its digest."""

    name: str
    source: str
    licence: str
    range: tuple[float, float] | None = None
    """Strengths that its publication shows."""


_INTERFACEGAN = "InterFaceGAN direction (Shen et al. 2020) distributed with encoder4editing (Tov et al. 2021)"
_GANSPACE = "GANSpace components (Harkonen et al. 2020) distributed with encoder4editing (Tov et al. 2021)"
_BOTH = "MIT AND Apache-2.0"
_SHOWN = (-5.0, 5.0)
"""The strengths encoder4editing shows InterFaceGAN's directions with, and StyleCLIP single style channels."""

KNOWN = {
    "50074516b1629707d89b5e43d6b8abd1792212fa3b961a87a11323d6a5222ae0": Known("age", _INTERFACEGAN, "MIT", _SHOWN),
    "736e0eacc8488fa0b020a2e7bd256b957284c364191dfea693705e5d06d43e7d": Known("pose", _INTERFACEGAN, "MIT", _SHOWN),
    "817a7e732b59dee9eba862bec8bd7e8373568443bc9f9731a21cf9b0356f0653": Known("smile", _INTERFACEGAN, "MIT", _SHOWN),
    "4d7f9df1c96180d9026b9cb8d04753579fbf385f321a9d0e263641601c5e5d36": Known("ffhq_pca", _GANSPACE, _BOTH),
    "a5c3bae61ecd85de077fbbf103f5f30cf4b7676fe23a8508166eaf2ce73c8392": Known("cars_pca", _GANSPACE, _BOTH),
    "d35879347e5df307287404d08b9166c4e304c544c07e5c0d345d346bde77656f": Known(
        "S_mean_std",
        "style channels (Wu et al. 2021), deviations from StyleCLIP (Patashnik et al. 2021)",
        "MIT",
        _SHOWN,
    ),
}
"""The official files by SHA-256."""


def read(path: Path) -> tuple[Any, Known | None]:
    """The arrays of a file (see `training.importers.arrays`), and the official file that it is.

    Raises:
        EdgeditError: if PyTorch is not installed, or the file is not one of arrays.
    """
    try:
        from training.importers.arrays import read_arrays
    except ModuleNotFoundError as error:
        raise DirectionError(f"`edgedit import direction` needs {error.name}: pip install 'edgedit[train]'") from error
    file = read_arrays(path)
    return file.value, KNOWN.get(file.sha256)


def plain_name(stem: str) -> str:
    """A direction's name from a file's: "smile (1)", as browsers save a second copy, is smile.

    Raises:
        DirectionError: if nothing is left.
    """
    plain = unicodedata.normalize("NFKD", re.sub(r"[\s_-]*[(\[]\d+[)\]]$", "", stem)).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")[:128]
    if not plain:
        raise DirectionError(f"the file's name {stem!r} makes no name for a direction; give one with --name")
    return plain


def vector(path: Path, value: Any) -> np.ndarray:
    """The one array that a file holds, by itself or in a container beside single numbers; a list of numbers is one too.

    Raises:
        DirectionError: if it holds none, or several.
    """
    if isinstance(value, list) and value and all(type(item) in (int, float) for item in value):
        return np.array(value, np.float64)
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
    arrays = [part for part in parts if isinstance(part, np.ndarray) and (part.size > 1 or part is value)]
    if len(arrays) != 1:
        held = (
            ", ".join(value)
            if isinstance(value, dict)
            else "lists of arrays"
            if isinstance(value, list)
            else "no array"
        )
        raise DirectionError(f"{path} holds {held} and not one vector; is it of another kind?")
    return arrays[0]


def lists(path: Path, value: Any) -> list[Any]:
    """The means and the deviations by style layer of a file of statistics."""
    if not isinstance(value, list) or not all(isinstance(part, list) for part in value):
        raise DirectionError(f"{path} holds no lists of means and deviations by style layer")
    return value


@dataclass(frozen=True)
class Imported:
    """A direction that was made of a published file."""

    direction: Direction
    chosen: dict[str, Any]
    """The part of the file that was taken: the component, channels, or beta and the number of channels that move."""


def import_direction(
    kind: Kind,
    file: str | Path | None,
    *,
    family: str = FACES_1024.name,
    recipe: str | None = None,
    component: int | None = None,
    rows: tuple[int, int] | None = None,
    channels: Sequence[str] = (),
    unit: float | None = None,
    text: str | Path | None = None,
    statistics: str | Path | None = None,
    beta: float | None = None,
    name: str | None = None,
    range: tuple[float, float] | None = None,
    description: str | None = None,
    source: str | None = None,
    licence: str | None = None,
) -> Imported:
    """Makes a direction of a published file; reading it runs no code in it.

    Args:
        kind: interfacegan, a vector in W or W+; ganspace, a principal component; stylespace, single style channels;
            or styleclip, a global direction for a text.
        file: the official file; None for style channels in a unit of one's own.
        family: of the generator that it was found for.
        recipe: of ganspace and stylespace, a published edit by name.
        component, rows: of ganspace in place of a recipe: the component from 0, and first and one-past-last W+ row.
        channels: of stylespace in place of a recipe, as LAYER:CHANNEL.
        unit: of stylespace without a file, what a strength of 1 adds to each channel.
        text: of styleclip, the embedding of the target text less that of the neutral one.
        statistics: of styleclip, the statistics of the style channels.
        beta: of styleclip, the relevance below which channels stay.
        name, description, source, licence: of the direction, in place of what is known of the file.
        range: usable strengths, in place of the published ones.

    Raises:
        DirectionError: if arguments are missing or do not go together, the file is not what it should be, its terms or
            strengths are neither known nor given, or the direction moves nothing that the family's generator reads.
        EdgeditError: if PyTorch, which some files need, is not installed.

    Example:
        >>> made = edgedit.import_direction("interfacegan", "age.npy", licence="MIT", range=(-3, 3))
        >>> made.direction.save("age.safetensors")
    """
    words = Words(name=name, range=range, description=description, source=source, licence=licence)
    if kind == "stylespace":
        made = _stylespace(file, family, recipe, channels, unit, words)
    elif file is None:
        raise DirectionError(f"{kind} needs a file")
    elif kind == "interfacegan":
        made = _interfacegan(Path(file), family, words)
    elif kind == "ganspace":
        made = _ganspace(Path(file), family, recipe, component, rows, words)
    elif text is None or statistics is None or beta is None:
        raise DirectionError("styleclip needs --text, --statistics and --beta")
    else:
        made = _styleclip(Path(file), family, Path(text), Path(statistics), beta, words)
    direction = made.direction
    strongest = max(direction.min_strength, direction.max_strength, key=abs)
    resolve({direction.name: direction}, {direction.name: strongest}, find_family(family))
    return made


def _interfacegan(file: Path, family: str, words: Words) -> Imported:
    value, known = read(file)
    array = vector(file, value)
    about = words.about(file.stem, file.stem, known, known.range if known else None)
    return Imported(interfacegan(array, find_family(family), about), {})


def _ganspace(
    file: Path, family: str, recipe: str | None, component: int | None, rows: tuple[int, int] | None, words: Words
) -> Imported:
    if (recipe is None) == (component is None):
        raise DirectionError("give either --recipe NAME or --component NUMBER")
    shown = None
    if recipe is not None:
        if rows is not None:
            raise DirectionError("a recipe has its rows; leave --rows out")
        published = find_recipe(COMPONENTS, family, recipe)
        component, rows, shown = published.component, published.rows, published.range
    assert component is not None
    value, known = read(file)
    if not isinstance(value, dict):
        raise DirectionError(f"{file} holds no mean, comp and std and is no GANSpace file")
    name = recipe or f"pc{component:02d}"
    about = words.about(name, f"{name.replace('_', ' ')} (component {component})", known, shown)
    return Imported(ganspace(value, find_family(family), component, rows, about), {"component": component})


def _stylespace(
    file: str | Path | None,
    family: str,
    recipe: str | None,
    named: Sequence[str],
    unit: float | None,
    words: Words,
) -> Imported:
    if (recipe is None) == (not named):
        raise DirectionError("give either --recipe NAME or --channels LAYER:CHANNEL ...")
    if (file is None) == (unit is None):
        raise DirectionError("give either a statistics file or --unit NUMBER")
    channels = _channels(named) if recipe is None else find_recipe(CHANNELS, family, recipe)
    known, size = None, unit
    if file is not None:
        value, known = read(Path(file))
        size = style_deviations(lists(Path(file), value), find_family(family))
    assert size is not None
    listed = ", ".join(f"{layer}:{channel}" for layer, channel in channels)
    name = recipe or "-".join(f"s{layer}.{channel}" for layer, channel in channels)
    about = words.about(name, f"{name.replace('_', ' ')} (style {listed})", known, known.range if known else None)
    return Imported(stylespace(channels, find_family(family), size, about), {"channels": channels})


def _styleclip(file: Path, family: str, text: Path, statistics: Path, beta: float, words: Words) -> Imported:
    about = words.about(text.stem, text.stem, None, _GUI)
    deviations = style_deviations(lists(statistics, read(statistics)[0]), find_family(family))
    matrix, target = (vector(path, read(path)[0]) for path in (file, text))
    direction, moved = styleclip_global(matrix, target, deviations, find_family(family), beta, about)
    return Imported(direction, {"beta": beta, "moved": moved})


def _channels(items: Sequence[str]) -> Channels:
    pairs = []
    for item in items:
        layer, colon, channel = item.partition(":")
        if not colon or not layer.isdecimal() or not channel.isdecimal():
            raise DirectionError(f"{item!r} is not LAYER:CHANNEL, such as 6:501")
        pairs.append((int(layer), int(channel)))
    return tuple(pairs)
