"""Modules of others that go by the name of a package of this project, which installs several (docs/architecture.md)."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def check_own(module: str) -> None:
    """Checks, without importing it, that a module's package is the one that was installed beside `edgedit`.

    Args:
        module: `engines`, or `training.running.api`, whose package is `training`.

    Raises:
        ImportError: if Python would import another one, say a script `training.py` beside the one that runs.

    Example:
        >>> check_own("engines")
    """
    name = module.partition(".")[0]
    spec = importlib.util.find_spec(name)
    # A folder without __init__.py has no origin; one that is not installed at all is reported as such by its import.
    place = spec and (spec.origin or next(iter(spec.submodule_search_locations or ()), None))
    home = Path(__file__).resolve().parents[1]
    if place and home not in Path(place).resolve().parents:
        raise ImportError(
            f"edgedit needs its own package `{name}` from {home}, but Python takes {place} for it: "
            "rename that, or take its folder off Python's path",
            name=name,
        )


# Importing `edgedit` imports `engines`, so this is the first of its imports.
check_own("engines")
