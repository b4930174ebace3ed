"""edgedit: real-image attribute editing by StyleGAN2 inversion, from training to exported engines.

Importing it loads what edits photos, and no PyTorch: everything else is loaded when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgedit.collisions import check_own
from edgedit.editor import PORTRAIT_BUNDLE, Editor, Portrait
from engines.directions import Direction, Strength
from engines.errors import EdgeditError
from engines.photo.claims import read_credentials
from engines.photo.credentials import Credentials
from engines.session import Inversion

if TYPE_CHECKING:
    from edgedit.batching.job import batch
    from edgedit.building import build, certify, estimate, refit
    from edgedit.importing import import_mapper, import_weights
    from edgedit.packing import pack
    from export.api import export
    from serving.client import AsyncClient, Client
    from training.importers.directions import import_direction
    from training.running.api import calibrate_directions, evaluate, fit_directions, train

__all__ = [
    "PORTRAIT_BUNDLE",
    "AsyncClient",
    "Client",
    "Credentials",
    "Direction",
    "EdgeditError",
    "Editor",
    "Inversion",
    "Portrait",
    "Strength",
    "batch",
    "build",
    "calibrate_directions",
    "certify",
    "estimate",
    "evaluate",
    "export",
    "fit_directions",
    "import_direction",
    "import_mapper",
    "import_weights",
    "pack",
    "read_credentials",
    "refit",
    "train",
]
__version__ = "0.1.0"

_ELSEWHERE = {
    "edgedit.batching.job": ("batch",),
    "edgedit.building": ("build", "certify", "estimate", "refit"),
    "edgedit.importing": ("import_mapper", "import_weights"),
    "edgedit.packing": ("pack",),
    "export.api": ("export",),
    "serving.client": ("AsyncClient", "Client"),
    "training.running.api": ("calibrate_directions", "evaluate", "fit_directions", "train"),
    "training.importers.directions": ("import_direction",),
}
"""Names that are loaded when they are asked for, by module: most need an extra (see pyproject.toml)."""
_HOME = {name: module for module, names in _ELSEWHERE.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        check_own(_HOME[name])
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
