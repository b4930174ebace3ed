"""Measurements of a trained system on held-out photos: reconstruction and edits, beside simpler ways of doing the same.

Every image is rounded to 8 bits before it is compared, as a user would get it. Pictures that are larger than the photos
are averaged down to the photos' size first; what an edit does to fine detail is measured at full size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from engines.directions import Direction, resolve
from engines.family import ModelFamily
from training.data import FaceSet, as_photos, at_once, encoder_input
from training.losses.lpips import LPIPS
from training.measuring.edits import edit_at
from training.measuring.judges import Judges
from training.methods.paper import EditingSystem, Inversion
from training.networks.surroundings import ellipse_radius

TARGETS: dict[str, dict[str, Any]] = {
    "reconstruction": {"psnr": (31.0, "higher"), "lpips": (0.02, "lower"), "identity": (0.96, "higher")},
    "edits": {
        "smile": {"change": 0.4, "identity": 0.60, "outside": 4.0, "chroma": 3.0},
        "age": {"change": 10.0, "identity": 0.50, "outside": 8.0},
        "yaw": {"change": 10.0, "identity": 0.60},
        "male": {"change": 0.4, "identity": 0.60, "outside": 4.0},
        "glasses": {"identity": 0.60, "outside": 4.0},
    },
}
"""The figures that a model of 1024 pixels is meant to reach: dB, LPIPS and identity cosine; the change of p(happy),
years, degrees and p(male) in the asked direction, of faces with room for it where it is a probability; and at most so
many levels of change outside the face and of the face's mean colour (see `Evaluator.edit`)."""


def compare_targets(reached: dict[str, float], edits: list[dict[str, Any]]) -> dict[str, Any]:
    """Each target beside what was reached, and whether it is met.

    Args:
        reached: what `Evaluator.reconstruction` says of our way.
        edits: what `Evaluator.edit` returned.
    """
    result: dict[str, Any] = {}
    for name, (target, better) in TARGETS["reconstruction"].items():
        met = reached[name] >= target if better == "higher" else reached[name] <= target
        result[name] = {"reached": reached[name], "target": target, "met": met}
    for edit in edits:
        target = TARGETS["edits"].get(edit["direction"])
        if target is not None:
            ours = dict(edit["ours"])
            if "change" in target:
                ours["change"] = ours.get("change_with_room", ours["change"])
            reached_here = {name: ours[name] for name in target}
            signed = {**reached_here, "change": ours.get("change", 0.0) * (1 if edit["strength"] > 0 else -1)}
            at_most = ("outside", "chroma")
            result[f"{edit['direction']} {edit['strength']:+g}"] = {
                **reached_here,
                "target": target,
                "met": all(
                    signed[name] <= value if name in at_most else signed[name] >= value
                    for name, value in target.items()
                ),
            }
    return result


def quantise(image: Tensor) -> Tensor:
    """Images in [-1, 1] as they are after 8-bit rounding."""
    return image.clamp(-1, 1).add(1).mul(127.5).round().div(127.5).sub(1)


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per image (B) in dB, of images in [-1, 1]."""
    # By hand: torchmetrics 1.9 gives the same to 2e-6 dB, but infinity for equal images, which no mean survives.
    error = (output - target).square().mean(dim=(1, 2, 3)).clamp_min(1e-12)
    return 10 * torch.log10(4.0 / error)


def like(image: Tensor, photos: Tensor, family: ModelFamily) -> Tensor:
    """Rendered pictures B x 3 x S x S as photos B x 3 x h x w are, rounded to 8 bits."""
    return quantise(as_photos(image, family, (photos.shape[2], photos.shape[3])))


_KEEP_BYTES = 2 << 30
"""Inversions of all photos are kept if they take less than this; else they are made anew for every edit."""
WAYS = ("ours", "linear")
"""How edits are made that are compared: the system's own, and F + G(w~) - G(w)."""
RING = 1 / 16
"""Width of the outer ring of a picture that is no part of the face, as a fraction."""


def regions(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Masks height x width of the face's ellipse, of what is outside it, and of the outer ring."""
    face = ellipse_radius(height, width) <= 1
    edge = round(width * RING)
    ring = torch.ones(height, width, dtype=torch.bool)
    ring[edge : height - edge, edge : width - edge] = False
    return face, ~face, ring


_CHROMA = torch.tensor([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""Rows of Cb and Cr of JPEG's (ITU-T T.871) conversion from RGB."""


def chroma_shift(image: Tensor, start: Tensor, mask: Tensor) -> Tensor:
    """The distance by which a region's mean colour moves in the plane of Cb and Cr, in 8-bit levels per image (B)."""
    moved = ((image - start) * 127.5 * mask).sum(dim=(2, 3)) / mask.sum()
    return torch.linalg.vector_norm(moved @ _CHROMA.to(moved).T, dim=1)


def detail(image: Tensor) -> Tensor:
    """Energy of an image's luminance above half of Nyquist per image (B), mean square in 8-bit levels."""
    grey = image.mean(dim=1) * 127.5
    side = grey.shape[-1]
    spectrum = torch.fft.rfft2(grey, norm="ortho").abs().square()
    rows = torch.fft.fftfreq(side).abs()[:, None]
    columns = torch.fft.rfftfreq(side)[None]
    high = torch.maximum(rows, columns) > 0.25
    # All columns but the first and the last stand for two.
    twice = torch.full((1, spectrum.shape[-1]), 2.0)
    twice[0, 0] = twice[0, -1] = 1.0
    return (spectrum * twice * high).sum(dim=(1, 2)) / side**2


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
        batch: photos that are rendered at a time; None: as many as `training.data.at_once` says.
    """

    def __init__(
        self,
        system: EditingSystem,
        faces: FaceSet,
        lpips: LPIPS,
        identity: nn.Module,
        judges: Judges,
        *,
        batch: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.system = system.to(device).eval()
        self.lpips, self.identity, self.judges = lpips.to(device), identity.to(device), judges
        batch = batch or at_once(system.family)
        self.photos = [faces.tensor(slice(i, i + batch), device) for i in range(0, len(faces), batch)]
        self.face, self.outside, self.ring = regions(*faces.size)
        self._inversions: list[Inversion] | None = None
        self._reconstructed: dict[int, tuple[Tensor, Tensor]] = {}

    @functools.cached_property
    def embedded(self) -> list[Tensor]:
        """The photos' embeddings, made when the first comparison needs them: a run that goes on may need none."""
        with torch.no_grad():
            return [self.identity(x) for x in self.photos]

    def _inverted(self, description: str) -> Iterator[tuple[Tensor, Inversion, Tensor]]:
        """Photos, their inversions and their embeddings, batch by batch; inversions are kept where they are small."""
        if self._inversions is None and len(self.photos) * self.photos[0].shape[0] * _bytes(self.system) < _KEEP_BYTES:
            self._inversions = [self.system.invert(encoder_input(x, self.system.family)) for x in self.photos]
        for index, photos in enumerate(track(self.photos, description=description)):
            inversion = (
                self._inversions[index]
                if self._inversions
                else self.system.invert(encoder_input(photos, self.system.family))
            )
            yield photos, inversion, self.embedded[index]

    @torch.no_grad()
    def _compare(self, render: Callable[[Inversion], Tensor]) -> dict[str, float]:
        values: dict[str, list[Tensor]] = {"psnr": [], "lpips": [], "identity": []}
        for photo, inversion, embedded in self._inverted("reconstructing"):
            image = like(render(inversion), photo, self.system.family)
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
    def edit(
        self, direction: Direction, strength: float, attribute: str | None, ways: Collection[str] = WAYS
    ) -> dict[str, dict[str, float]]:
        """Change of the judge's score and identity to the photo, of our edit and of linear editing.

        Args:
            attribute: what is judged; None: nothing judges this direction.
            ways: which of `WAYS` are measured.

        Returns:
            Each way's means over the photos: `change` of the score to the photo; `identity` cosine to the photo;
            `ring` and `outside`, the change to the reconstruction in grey levels in the outer ring and outside the
            face's ellipse; `chroma`, the shift of the face's mean colour to the reconstruction in levels; `detail`, the
            energy above half of Nyquist over the reconstruction's.
        """
        delta = resolve({direction.name: direction}, {direction.name: strength}, self.system.family).delta_w
        delta_w = torch.from_numpy(delta)[None]
        renders: Mapping[str, Callable[[Inversion, Tensor], Tensor]] = {
            "ours": self.system.edit,
            "linear": lambda inversion, d: linear_edit(self.system, inversion, d),
        }
        before: list[np.ndarray] = []
        after: dict[str, list[np.ndarray]] = {way: [] for way in ways}
        values: dict[str, dict[str, list[Tensor]]] = {way: {} for way in ways}
        for index, (photos, inversion, embedded) in enumerate(self._inverted(f"{direction.name} {strength:+g}")):
            if index not in self._reconstructed:
                whole = self.system.reconstruct(inversion)
                self._reconstructed[index] = like(whole, photos, self.system.family), detail(quantise(whole))
            start, energy = self._reconstructed[index]
            if attribute:
                before.append(self.judges.score(photos, (attribute,))[attribute])
            for name in ways:
                whole = renders[name](inversion, delta_w.to(embedded.device).expand(len(embedded), -1, -1))
                image = like(whole, photos, self.system.family)
                if attribute:
                    after[name].append(self.judges.score(image, (attribute,))[attribute])
                change = (image - start).abs().mean(dim=1) * 127.5
                for key, value in {
                    "identity": (self.identity(image) * embedded).sum(dim=1),
                    "ring": change[:, self.ring].mean(dim=1),
                    "outside": change[:, self.outside].mean(dim=1),
                    "chroma": chroma_shift(image, start, self.face),
                    "detail": detail(quantise(whole)) / energy,
                }.items():
                    values[name].setdefault(key, []).append(value)
        result = {}
        for name in ways:
            result[name] = {key: float(torch.cat(value).mean()) for key, value in values[name].items()}
            if attribute:
                scores = np.concatenate(before)
                change = np.concatenate(after[name]) - scores
                result[name] |= {"change": float(change.mean()), **_by_start(attribute, scores, change, strength)}
        return result


def _bytes(system: EditingSystem) -> int:
    """Size of one photo's inversion: two features in float32."""
    return 8 * int(np.prod(system.family.feature_shape))


def _by_start(attribute: str, before: np.ndarray, change: np.ndarray, strength: float) -> dict[str, float]:
    """The change of a probability also among faces that have room to move: below (above) one half at the start."""
    if attribute not in ("smile", "female", "male"):
        return {}
    room = before < 0.5 if strength > 0 else before >= 0.5
    return {"change_with_room": float(change[room].mean()), "faces_with_room": int(room.sum())} if room.any() else {}


@torch.no_grad()
def photo_range(
    system: EditingSystem,
    photos: Tensor,
    identity: nn.Module,
    direction: Direction,
    *,
    limit: float,
    floor: float = 0.5,
    step: float = 0.5,
) -> tuple[float, float]:
    """The strengths of a direction at which edited photos keep their identity, found by bisection: what is kept falls
    as strengths grow.

    Args:
        photos: B x 3 x S x S in [-1, 1].
        limit: the strength beyond which nothing is tried, either way.
        floor: the mean identity cosine between photo and edit that must be kept.
        step: the range ends at a multiple of this.

    Returns:
        Lowest and highest strength, at least one step either side of zero.
    """
    parts = photos.split(at_once(system.family))
    inversions = [system.invert(encoder_input(part, system.family)) for part in parts]
    start = torch.cat([identity(part) for part in parts])
    grid = np.arange(step, limit + 1e-9, step)

    def keeps(strength: float) -> bool:
        deltas = edit_at(direction, strength, system.family, photos.device)
        similar = [
            identity(like(system.edit(inversion, *deltas), part, system.family))
            for part, inversion in zip(parts, inversions, strict=True)
        ]
        return bool((torch.cat(similar) * start).sum(dim=1).mean() >= floor)

    ends = []
    for sign in (-1.0, 1.0):
        # The first strength of the grid counts as kept, so that every range has two sides.
        low, high = 0, len(grid)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if keeps(sign * float(grid[middle])) else (low, middle)
        ends.append(sign * float(grid[low]))
    return ends[0], ends[1]
