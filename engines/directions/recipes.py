"""Named edits that others have published for StyleGAN2-FFHQ and StyleGAN2-cars, by the family of the generator.

GANSpace components are those of the edits shown with encoder4editing (Tov et al. 2021) and SFE (Bobkov et al. 2024),
whose PCA files `edgedit import direction ganspace` reads. StyleSpace channels are those of Wu et al. (2021), as SFE
lists them; the layers are StyleSpace's, which count the ToRGB layers too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from engines.errors import DirectionError, suggestion
from engines.family import CARS_512, FACES_1024, FACES_1024_MOBILE

T = TypeVar("T")

Channels = tuple[tuple[int, int], ...]
"""(layer, channel) of StyleSpace."""


@dataclass(frozen=True)
class Component:
    """A principal component of W on some rows, with the strengths that were published."""

    component: int
    rows: tuple[int, int]
    """First and one-past-last W+ row."""
    strength: float
    """The strength in standard deviations of the component."""
    both: bool = False
    """Whether it was published with the opposite sign too."""

    @property
    def range(self) -> tuple[float, float]:
        """The published strengths with all between them and no edit."""
        ends = (-self.strength, self.strength) if self.both else (0.0, self.strength)
        return min(ends), max(ends)


COMPONENTS: dict[str, dict[str, Component]] = {
    FACES_1024.name: {
        "eye_openness": Component(54, (7, 8), 5),
        "trimmed_beard": Component(58, (7, 9), 7),
        "lipstick": Component(34, (10, 11), 20),
        "face_roundness": Component(37, (0, 5), 20),
        "nose_length": Component(51, (4, 5), -30),
        "eyebrow_thickness": Component(37, (8, 9), 20),
        "head_angle_up": Component(11, (1, 4), -10.5),
        "displeased": Component(36, (4, 7), 10),
    },
    CARS_512.name: {
        "pose": Component(0, (0, 5), 2, both=True),
        "cube": Component(16, (3, 6), 25),
        "color": Component(22, (9, 11), -8),
        "grass": Component(41, (9, 11), -18),
    },
}
# MobileStyleGAN was distilled from the generator that these were found in, and its rows stand for the same resolutions.
COMPONENTS[FACES_1024_MOBILE.name] = COMPONENTS[FACES_1024.name]

CHANNELS: dict[str, dict[str, Channels]] = {
    FACES_1024.name: {
        "smiling": ((6, 501),),
        "glasses": ((3, 288), (2, 175), (3, 120), (2, 97)),
        "gender": ((9, 6),),
        "black_hair": ((12, 479),),
        "blond_hair": ((12, 266),),
        "grey_hair": ((11, 286),),
        "wavy_hair": ((6, 500), (8, 128), (5, 92), (6, 394), (6, 323)),
        "bangs": ((3, 259), (6, 285), (5, 414), (6, 128), (9, 295), (6, 322), (6, 487), (6, 504)),
        "receding_hairline": ((5, 414), (6, 322), (6, 497), (6, 504)),
        "sideburns": ((12, 237),),
        "goatee": ((9, 421),),
        "earrings": ((8, 81),),
        "lipstick": ((15, 45),),
        "suit": ((9, 441), (8, 292), (11, 358), (6, 223)),
    },
    CARS_512.name: {
        "headlights": ((8, 441), (9, 355)),
        "trees": ((9, 108),),
        "grass": ((12, 107),),
        "sky": ((12, 76),),
        "grill": ((9, 191),),
        "color": ((12, 142), (15, 227)),
        "front": ((8, 411),),
        "hubcap": ((12, 113), (12, 439)),
        "logo": ((9, 185),),
        "wheel_angle": ((8, 420),),
    },
}


def recipe(tables: Mapping[str, Mapping[str, T]], family: str, name: str) -> T:
    """The entry of `COMPONENTS` or `CHANNELS` of that name for a family.

    Raises:
        DirectionError: if there is none; the message names close ones.
    """
    table = tables.get(family, {})
    if name in table:
        return table[name]
    if not table:
        raise DirectionError(f"there are no recipes for family {family}, only for {', '.join(tables)}")
    raise DirectionError(
        f"unknown recipe {name!r}; {suggestion(name, table)}for family {family} there are {', '.join(table)}"
    )
