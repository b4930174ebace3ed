"""What a trained system reaches on held-out photos: reconstruction and edits, beside simpler ways of doing the same.

Every image is rounded to 8 bits before it is judged, as a user would get it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from engines.directions import Direction, resolve
from training.data import FaceSet, encoder_input
from training.judges import Judges
from training.losses.identity import Identity
from training.losses.lpips import LPIPS
from training.networks.system import EditingSystem, Inversion

TARGETS: dict[str, dict[str, Any]] = {
    "reconstruction": {"psnr": (27.0, "higher"), "lpips": (0.08, "lower"), "identity": (0.80, "higher")},
    "edits": {"smile": {"change": 0.4, "identity": 0.55}, "age": {"change": 10.0, "identity": 0.55}},
}
"""What a demo model is meant to reach: dB, LPIPS and identity cosine; p(happy) and years in the asked direction."""


def quantise(image: Tensor) -> Tensor:
    """Images in [-1, 1] as they are after 8-bit rounding."""
    return image.clamp(-1, 1).add(1).mul(127.5).round().div(127.5).sub(1)


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per image (B) in dB, of images in [-1, 1]."""
    error = (output - target).square().mean(dim=(1, 2, 3)).clamp_min(1e-12)
    return 10 * torch.log10(4.0 / error)


def linear_edit(system: EditingSystem, inversion: Inversion, delta_w: Tensor) -> Tensor:
    """The linear co-editing of the feature-style encoder: F + G(w~) - G(w), for comparison."""
    edited = system.features(inversion.w_e + delta_w)
    feature = inversion.feature + edited - inversion.generator_feature
    return system.render(feature, inversion.w + delta_w)


class Evaluator:
    """Measures one system on one image set.

    Args:
        system: the trained system.
        faces: held-out photos.
    """

    def __init__(
        self,
        system: EditingSystem,
        faces: FaceSet,
        lpips: LPIPS,
        identity: Identity,
        judges: Judges,
        *,
        batch: int = 50,
        device: str = "cpu",
    ) -> None:
        self.system = system.to(device).eval()
        self.lpips, self.identity, self.judges = lpips.to(device), identity.to(device), judges
        self.photos = [faces.tensor(slice(i, i + batch), device) for i in range(0, len(faces), batch)]
        with torch.no_grad():
            self.inversions = [
                system.invert(encoder_input(x, system.family)) for x in track(self.photos, description="inverting")
            ]
            self.embedded = [identity(x) for x in self.photos]

    @torch.no_grad()
    def _compare(self, render: Callable[[Inversion], Tensor]) -> dict[str, float]:
        values: dict[str, list[Tensor]] = {"psnr": [], "lpips": [], "identity": []}
        for photo, inversion, embedded in zip(self.photos, self.inversions, self.embedded, strict=True):
            image = quantise(render(inversion))
            values["psnr"].append(psnr(image, photo))
            values["lpips"].append(self.lpips(image, photo))
            values["identity"].append((self.identity(image) * embedded).sum(dim=1))
        return {name: float(torch.cat(v).mean()) for name, v in values.items()}

    def reconstruction(self) -> dict[str, dict[str, float]]:
        """PSNR (dB), LPIPS and identity cosine of the system's reconstruction, and of e4e's W+ code alone."""
        return {
            "ours": self._compare(self.system.reconstruct),
            "e4e_w_plus": self._compare(lambda inversion: self.system.generator(inversion.w_e)),
        }

    @torch.no_grad()
    def edit(self, direction: Direction, strength: float, attribute: str) -> dict[str, Any]:
        """Change of the judge's score and identity to the photo, of our edit and of linear editing."""
        delta = resolve({direction.name: direction}, {direction.name: strength}, self.system.family).delta_w
        delta_w = torch.from_numpy(delta)[None]
        before = np.concatenate([self.judges.score(x, (attribute,))[attribute] for x in self.photos])
        ways: Mapping[str, Callable[[Inversion, Tensor], Tensor]] = {
            "ours": self.system.edit,
            "linear": lambda inversion, d: linear_edit(self.system, inversion, d),
        }
        result: dict[str, Any] = {"direction": direction.name, "strength": strength, "attribute": attribute}
        for name, way in ways.items():
            after, kept = [], []
            for inversion, embedded in zip(self.inversions, self.embedded, strict=True):
                d = delta_w.to(embedded.device).expand(len(embedded), -1, -1)
                image = quantise(way(inversion, d))
                after.append(self.judges.score(image, (attribute,))[attribute])
                kept.append((self.identity(image) * embedded).sum(dim=1))
            change = np.concatenate(after) - before
            result[name] = {
                "change": float(change.mean()),
                "identity": float(torch.cat(kept).mean()),
                **_by_start(attribute, before, change, strength),
            }
        return result


def _by_start(attribute: str, before: np.ndarray, change: np.ndarray, strength: float) -> dict[str, float]:
    """For a probability, also the change among faces that have room to move: below (above) one half at the start."""
    if attribute not in ("smile", "female"):
        return {}
    room = before < 0.5 if strength > 0 else before >= 0.5
    return {"change_with_room": float(change[room].mean()), "faces_with_room": int(room.sum())} if room.any() else {}


@torch.no_grad()
def photo_range(
    system: EditingSystem,
    photos: Tensor,
    identity: Identity,
    direction: Direction,
    *,
    limit: float,
    floor: float = 0.58,
    step: float = 0.5,
) -> tuple[float, float]:
    """The strengths of a direction at which edited photos keep their identity.

    Args:
        photos: B x 3 x S x S in [-1, 1].
        limit: the strength beyond which nothing is tried, either way.
        floor: the mean identity cosine between photo and edit that must be kept; somewhat above what unseen photos
            are to keep, where these are photos that the networks were trained on.
        step: the range ends at a multiple of this.

    Returns:
        Lowest and highest strength, at least one step either side of zero.
    """
    inversion = system.invert(encoder_input(photos, system.family))
    start = identity(photos)
    ends = []
    wide = replace(direction, min_strength=-limit, max_strength=limit)
    for sign in (-1.0, 1.0):
        reached = step
        for strength in np.arange(step, limit + 1e-9, step):
            edit = resolve({wide.name: wide}, {wide.name: sign * strength}, system.family)
            delta = torch.from_numpy(edit.delta_w).to(photos.device).expand(len(photos), -1, -1)
            image = quantise(system.edit(inversion, delta))
            if (identity(image) * start).sum(dim=1).mean() < floor:
                break
            reached = float(strength)
        ends.append(sign * reached)
    return ends[0], ends[1]
