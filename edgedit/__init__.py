"""edgedit: real-image attribute editing by StyleGAN2 inversion, from training to exported engines."""

from __future__ import annotations

from edgedit.editor import DEMO_BUNDLE, Editor, Portrait
from engines.errors import EdgeditError
from engines.session import Inversion

__all__ = ["DEMO_BUNDLE", "EdgeditError", "Editor", "Inversion", "Portrait"]
__version__ = "0.1.0"
