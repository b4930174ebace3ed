"""The loss networks as judges of 8-bit pictures: what an accuracy certificate compares with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engines.building.certificate import Judges
from training.data import from_pixels
from training.losses.identity import Identity
from training.losses.lpips import LPIPS

BATCH = 8
"""Pictures at a time."""


def picture_judges(lpips: Path | None = None, identity: Path | None = None, device: str = "cpu") -> Judges:
    """Judges of uint8 pictures B x h x w x 3.

    Args:
        lpips: LPIPS weights (safetensors); None leaves that comparison out.
        identity: face embedder (ONNX); None leaves that one out.
        device: where they run.
    """

    def judge(network: nn.Module) -> Callable[..., np.ndarray]:
        network = network.to(device).eval()

        @torch.inference_mode()
        def batched(*pictures: np.ndarray) -> np.ndarray:
            parts = (
                network(*(from_pixels(own[start : start + BATCH], device) for own in pictures))
                for start in range(0, len(pictures[0]), BATCH)
            )
            return np.concatenate([part.numpy(force=True) for part in parts])

        return batched

    return Judges(
        identity=judge(Identity(identity)) if identity is not None else None,
        lpips=judge(LPIPS(lpips)) if lpips is not None else None,
    )
