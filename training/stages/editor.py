"""Stage d: the adaptive feature editor T = EDEM + EDFM (paper section 3.3, eq. 3.18-3.22).

Targets of edits are synthetic, G(w_e + alpha dw), and the editor sees the encoder's inversion of their unedited
counterpart G(w_e); real photos are targets of the edit of strength zero. Where G(w_e) is far from its photo, as it is
for a small generator, the features of photos are strange to an editor trained so: it then edits G(w_e) well and photos
hardly. `EditorOptions.photo_share` therefore lets part of the edits start from photos; their target is the photo plus
what the edit changes in the generator's image, X + G(w_e + alpha dw) - G(w_e), the edit discrepancy taken in pixels.
Both encoders are frozen, so everything they say about the training set is computed once, where it fits into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_optimizer import Ranger
from rich.progress import track
from torch import Tensor, nn

from engines.directions import Direction
from training.data import FaceSet, as_photos, encoder_input
from training.losses.image import ImageLoss, ImageWeights, LossFiles
from training.methods.paper import EditingSystem
from training.networks.editor import FeatureEditor
from training.stages.base import TrainingStage
from training.stages.edits import Edits
from training.stages.protocol import Averaged, StageOptions, descend


@dataclass(frozen=True, kw_only=True)
class EditorOptions(StageOptions):
    """Settings of the editor stage; the defaults are the paper's (section 4.1), which trains for 45,000 steps."""

    batch: int = 4
    learning_rate: float = 1e-4
    edit_share: float = 0.5
    """Share of a batch that is edited; the rest are real photos with strength zero."""
    photo_share: float = 0.0
    """Share of the edits whose input is a photo (see the module's text); the paper has none."""
    image: ImageWeights = field(default_factory=ImageWeights)
    discrepancy: float = 0.6
    """Weight of the edit-discrepancy regularisation (eq. 3.21)."""
    discrepancy_from: int = 20_000
    """Step from which that regularisation counts."""
    photos: int = 0
    """The number of training photos that are encoded and used, drawn by seed (and by the set's shares); 0: all.
    Encoding them all takes longer than a short run."""
    ahead: bool = True
    """Encode all photos once, before the first step, into memory: two features each in FP16, which are 8 MiB for a
    generator of 1024 pixels. False: encode each batch as it is drawn."""

    def __post_init__(self) -> None:
        if not 0 < round(self.batch * self.edit_share) < self.batch:
            raise ValueError(f"edit_share {self.edit_share} leaves a part of a batch of {self.batch} empty")
        if not 0 <= self.photo_share <= 1:
            raise ValueError(f"photo_share {self.photo_share} is not a share")


@dataclass(frozen=True)
class Codes:
    """The frozen encoders' outputs for the training images, float16; M images."""

    w: np.ndarray
    feature: np.ndarray
    """E's inversion of the photos: M x N x D, M x C x H x W."""
    w_e: np.ndarray
    """e4e's inversion of the photos: M x N x D."""
    w_synthetic: np.ndarray
    feature_synthetic: np.ndarray
    """E's inversion of G(w_e)."""


def _encode(system: EditingSystem, photos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(w, f') of E and w_e of e4e for photos B x 3 x h x w."""
    image = encoder_input(photos, system.family)
    return *system.encode(image), system.encode_e4e(image)


def _encode_drawn(system: EditingSystem, w_e: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(w, f') of E for G(w_e), seen as photos of that size are."""
    drawn = as_photos(system.generator(w_e).clamp(-1, 1), system.family, size)
    return system.encode(encoder_input(drawn, system.family))


@torch.no_grad()
def encode_set(system: EditingSystem, faces: FaceSet, *, batch: int = 50, device: str = "cpu") -> Codes:
    """Encodes a whole image set with a system's frozen encoders."""
    parts: list[list[np.ndarray]] = [[] for _ in range(5)]
    for start in track(range(0, len(faces), batch), description="encoding the training set"):
        images = faces.tensor(slice(start, start + batch), device).contiguous(memory_format=torch.channels_last)
        w, feature, w_e = _encode(system, images)
        for part, value in zip(parts, (w, feature, w_e, *_encode_drawn(system, w_e, faces.size)), strict=True):
            part.append(value.half().contiguous().cpu().numpy())
    return Codes(*(np.concatenate(part) for part in parts))


class EditorStage(TrainingStage[EditorOptions]):
    """Trains the editor of a system whose other parts are trained.

    Args:
        system: with generator, e4e, encoder, FTEM and latent average loaded; its editor is replaced by a fresh one.
        directions: what is edited; strengths are drawn uniformly from each one's usable range.

    Raises:
        ValueError: if there are no directions.
    """

    name = "editor"

    def __init__(
        self,
        system: EditingSystem,
        faces: FaceSet,
        directions: Sequence[Direction],
        files: LossFiles,
        options: EditorOptions,
        *,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.edits = Edits(directions, system.family, device)
        if 0 < options.photos < len(faces):
            draws = np.random.default_rng(seed)
            chosen = np.sort(draws.choice(len(faces), options.photos, replace=False, p=faces.shares))
            faces = FaceSet(faces.images[chosen], tuple(faces.names[i] for i in chosen))
        super().__init__(system.family, faces, options, seed=seed, device=device)
        system.editor = FeatureEditor(self.family)
        self.system = system.to(device).eval().requires_grad_(False)
        self.editor = system.editor.to(device, memory_format=torch.channels_last).train().requires_grad_(True)
        self.average = Averaged(self.editor, half_life=options.ema_images)
        self.loss = ImageLoss(files, options.image).to(device)
        self.codes = encode_set(self.system, faces, device=device) if options.ahead else None
        self.optimizers = {"editor": Ranger(self.editor.parameters(), lr=options.learning_rate)}

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"editor": self.editor, "average": self.average}

    def config(self) -> dict[str, Any]:
        return super().config() | {"directions": self.edits.names}

    def _load(self, array: np.ndarray, indices: np.ndarray) -> Tensor:
        value = torch.from_numpy(array[indices]).to(self.device).float()
        return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value

    @torch.no_grad()
    def _inputs(self, indices: np.ndarray, drawn: slice) -> tuple[Tensor, Tensor, Tensor]:
        """(w, f') of E and w_e of e4e for photos; in the slice `drawn` (w, f') are those of the generator's G(w_e)."""
        codes = self.codes
        if codes is None:
            photos = self.faces.tensor(indices, self.device).contiguous(memory_format=torch.channels_last)
            w, feature, w_e = _encode(self.system, photos)
        else:
            w, feature, w_e = (self._load(array, indices) for array in (codes.w, codes.feature, codes.w_e))
        if len(indices[drawn]):
            w[drawn], feature[drawn] = (
                _encode_drawn(self.system, w_e[drawn], self.faces.size)
                if codes is None
                else (self._load(array, indices[drawn]) for array in (codes.w_synthetic, codes.feature_synthetic))
            )
        return w, feature, w_e

    def step(self, step: int) -> dict[str, float | Tensor]:
        o = self.options
        indices = self.batches.indices(step)
        # In this order: photos edited, synthetic images edited, photos with strength zero.
        edits = round(o.batch * o.edit_share)
        real = round(edits * o.photo_share)
        choice, strength = self.edits.draw(edits)
        delta_w = strength[:, None, None] * self.edits.delta_w[choice]
        delta_s = strength[:, None] * self.edits.style_delta[choice]
        w, enhanced, w_e = self._inputs(indices, slice(real, edits))
        w[:edits] += delta_w
        padded_s = torch.cat([delta_s, delta_s.new_zeros(o.batch - edits, delta_s.shape[1])])
        target = self.faces.tensor(indices, self.device)
        with self.autocast():
            with torch.no_grad():
                drawn = self.as_photos(self.system.generator(w_e[:edits] + delta_w, delta_s).float())
                if real:
                    target[:real] += drawn[:real] - self.as_photos(self.system.generator(w_e[:real]).float())
                    target[:real].clamp_(-1, 1)
                target[real:edits] = drawn[real:]
                feature = self.system.features(w_e)
                edited = feature.clone()
                edited[:edits] = self.system.features(w_e[:edits] + delta_w, delta_s)
            discrepancy = self.editor.discrepancy(feature, edited)
            changed = self.editor.fuse(enhanced, discrepancy)
            output = self.as_photos(self.system.render(changed, w, style_delta=padded_s))
            total, terms = self.loss(output[:edits], target[:edits])
            total_photo, terms_photo = self.loss(output[edits:], target[edits:])
            total = total + total_photo
            regular = F.mse_loss((changed - enhanced).float(), discrepancy.float())
            if step >= o.discrepancy_from:
                total = total + o.discrepancy * regular
        descend(total, self.optimizers["editor"])
        self.average.update(self.editor, (step + 1) * o.batch, o.batch)
        return {**terms, **{f"photo_{k}": v for k, v in terms_photo.items()}, "discrepancy": regular.detach()}

    @torch.no_grad()
    def grid(self) -> Tensor:
        """Rows: photos, reconstructions, then one row per direction (the first four) at its greatest strength."""
        w, enhanced, w_e = self._inputs(np.arange(8), slice(0))
        feature = self.system.features(w_e)
        rows = [self.faces.tensor(slice(0, 8), self.device), self.as_photos(self.system.render(enhanced, w))]
        for index, strength in enumerate(self.edits.high[:4]):
            delta = strength * self.edits.delta_w[index]
            style = (strength * self.edits.style_delta[index]).expand(8, -1)
            edited = self.system.features(w_e + delta, style)
            changed = self.average.module(feature, edited, enhanced)
            rows.append(self.as_photos(self.system.render(changed, w + delta, style_delta=style)))
        return torch.stack(rows)
