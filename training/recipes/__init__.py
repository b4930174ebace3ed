"""The settings of all stages: everything a training run needs to be repeated, by name."""

from __future__ import annotations

from collections.abc import Callable

from engines.family import CARS_512, DEMO_64, DEMO_128, FACES_1024, FACES_1024_MOBILE
from training.recipes.base import Recipe
from training.recipes.demo import demo_64, demo_128
from training.recipes.mobile import faces_1024_mobile
from training.recipes.paper import cars_512x384, faces_1024

__all__ = ["RECIPES", "Recipe", "recipe"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    DEMO_64.name: demo_64,
    DEMO_128.name: demo_128,
    FACES_1024.name: faces_1024,
    CARS_512.name: cars_512x384,
    FACES_1024_MOBILE.name: faces_1024_mobile,
}


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
