"""edgedit: real-image attribute editing by StyleGAN2 inversion, from training to exported engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedit.editor import PORTRAIT_BUNDLE, Editor, Portrait
from engines.directions import Direction, Strength
from engines.errors import EdgeditError
from engines.session import Inversion

if TYPE_CHECKING:
    from serving.client import AsyncClient, Client

__all__ = [
    "PORTRAIT_BUNDLE",
    "AsyncClient",
    "Client",
    "Direction",
    "EdgeditError",
    "Editor",
    "Inversion",
    "Portrait",
    "Strength",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # The clients need the extra `serve`; who edits on this machine does not wait for them.
    if name in ("AsyncClient", "Client"):
        import serving.client

        return getattr(serving.client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
