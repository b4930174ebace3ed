from __future__ import annotations

import numpy as np
import pytest

from engines.bundle import Bundle
from engines.family import ModelFamily
from export.build import export_bundle
from tests.export.helpers import TINY, random_photos, random_system, smile
from training.methods.paper import EditingSystem


@pytest.fixture(scope="session")
def family() -> ModelFamily:
    return TINY


@pytest.fixture(scope="session")
def system(family: ModelFamily) -> EditingSystem:
    return random_system(family)


@pytest.fixture(scope="session")
def photos(family: ModelFamily) -> np.ndarray:
    return random_photos(family, 2)


@pytest.fixture(scope="session")
def bundle(family: ModelFamily, system: EditingSystem, photos: np.ndarray, tmp_path_factory) -> Bundle:
    """All eight graphs of the tiny family, exported and verified."""
    out = tmp_path_factory.mktemp("export") / "tiny"
    export_bundle(
        system,
        [smile(family)],
        photos,
        out,
        name="tiny",
        card="# Tiny\n",
        licence="CC0-1.0",
        metrics={"identity": 0.5},
        threads=1,
    )
    return Bundle.load(out)
