"""The loss networks as judges of 8-bit pictures: what an accuracy certificate compares with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from engines.building.certificate import Judges
from training.data import from_pixels
from training.losses.identity import Identity
from training.losses.lpips import LPIPS

BATCH = 8
"""Pictures at a time."""


def picture_judges(lpips: Path | None = None, identity: Path | None = None) -> Judges:
    """Judges of uint8 pictures B x h x w x 3.

    Args:
        lpips: LPIPS weights (safetensors); None leaves that comparison out.
        identity: face embedder (ONNX); None leaves that one out.
    """
    embedder = Identity(identity).eval() if identity is not None else None
    distance = LPIPS(lpips).eval() if lpips is not None else None

    @torch.inference_mode()
    def embed(images: np.ndarray) -> np.ndarray:
        assert embedder is not None
        starts = range(0, len(images), BATCH)
        return np.concatenate([embedder(from_pixels(images[i : i + BATCH])).numpy() for i in starts])

    @torch.inference_mode()
    def perceptual(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        assert distance is not None
        starts = range(0, len(a), BATCH)
        pairs = [(from_pixels(a[i : i + BATCH]), from_pixels(b[i : i + BATCH])) for i in starts]
        return np.concatenate([distance(*pair).numpy() for pair in pairs])

    return Judges(identity=embed if embedder is not None else None, lpips=perceptual if distance is not None else None)
