"""Synthetic pairs: codes of W and the images that a frozen generator renders of them, exact truth for encoders.

They are rendered once, by `render`, into files that stages draw from; a run may go on while more are being rendered.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from engines.store import atomic_file
from training.data import from_pixels, to_pixels
from training.networks.latents import mean_w
from training.networks.mobilestylegan import MobileGenerator

SHARD = 200
"""Pairs in a file."""
TRUNCATION = (0.6, 1.0)
"""Codes are drawn towards the mean by a factor between these: full draws have torn backgrounds more often."""


@dataclass(frozen=True)
class PairSet:
    """Images uint8 M x s x s x 3 (RGB) at the encoders' size and their codes float32 M x D."""

    images: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)

    def batch(self, indices: np.ndarray, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Images B x 3 x s x s in [-1, 1] and codes B x D."""
        return from_pixels(self.images[indices], device), torch.from_numpy(self.codes[indices]).to(device)


@torch.no_grad()
def render(generator: MobileGenerator, folder: Path, count: int, *, seed: int = 0, device: str = "cpu") -> None:
    """Renders pairs until `folder` holds `count`, in files that appear whole; those it holds stay.

    Args:
        generator: frozen; it is run in bfloat16, whose error is below that of 8-bit images.
        folder: where the files go.
        count: pairs in all, rounded up to whole files.
        seed: files of the same seed and number hold the same codes.
        device: torch device.
    """
    family = generator.family
    folder.mkdir(parents=True, exist_ok=True)
    mean = mean_w(generator)
    half = copy.deepcopy(generator).to(device).bfloat16()
    for index in track(range(-(-count // SHARD)), description="rendering pairs"):
        path = folder / f"{index:05d}.npz"
        if path.exists():
            continue
        draws = torch.Generator().manual_seed(seed * 100_003 + index)
        z = torch.randn(SHARD, family.style_dim, generator=draws)
        low, high = TRUNCATION
        psi = low + (high - low) * torch.rand(SHARD, 1, generator=draws)
        w = torch.lerp(mean.cpu(), generator.mapping(z.to(mean.device)).cpu(), psi).to(device)
        images = []
        for code in w.split(1):
            image = half(half.broadcast(code.bfloat16())).float()
            images.append(to_pixels(F.interpolate(image, size=family.encoder_size, mode="area")))
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, images=np.concatenate(images), codes=w.cpu().numpy())


def load_pairs(folder: Path) -> PairSet:
    """The pairs that `render` has written so far.

    Raises:
        FileNotFoundError: if there are none.
    """
    images, codes = [], []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as archive:
            images.append(archive["images"])
            codes.append(archive["codes"])
    if not codes:
        raise FileNotFoundError(f"no synthetic pairs in {folder}; run `edgedit train pairs` first")
    return PairSet(np.concatenate(images), np.concatenate(codes))
