"""Published direction files as `edgedit directions import` takes them: which are known, what they hold, their names."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import DirectionError

SUFFIX = ".safetensors"
"""Of edgedit's own direction files."""


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
"""By SHA-256."""


def read(path: Path) -> tuple[Any, Known | None]:
    """What a file holds (see `training.importers.arrays`), and the official file that it is.

    Raises:
        EdgeditError: if PyTorch is not installed, or the file is not one of arrays.
    """
    try:
        from training.importers.arrays import read_arrays
    except ModuleNotFoundError as error:
        raise DirectionError(f"`edgedit directions import` needs {error.name}: pip install 'edgedit[train]'") from error
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
