"""Stage d of the light family: T = EDEM + EDFM (eq. 3.18-3.22) on edits of synthetic pairs, whose target is exact.

As in the paper the target of an edit is the generator's own picture of the edited code, and photos are targets of the
edit of strength zero. Three things differ. The code of a synthetic photo is known; most of the edits start from the
code that e4e finds instead, as they will of a photo. Some edits go a part of the way to another code, so that the
editor meets more changes than the directions'. And photos are edited as well: what the generator's own picture does not
change there must stay as the photo is, e4e must see the photo change as far as it sees the generator's own picture
change, and no more of the person may be lost than is lost in that picture. Without the second the editor, which cannot
know where e4e's code is wrong, would rather change too little; without the third it writes the features of the person
that e4e found over those of the photo.

The generator's picture of an edited code has another background, too. Unless the head turns, an edit is to leave what
surrounds the face alone, so its target fades there into the unedited picture. Edits that turn it train the transport
alone, which starts at the principal components of the generator's features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engines.directions import Direction
from training.data import FaceSet
from training.losses.image import LossFiles
from training.methods.paper import EditingSystem
from training.networks.editor import FeatureEditor
from training.networks.light import LightFeatureStyleEncoder
from training.networks.mobilestylegan import MobileGenerator
from training.networks.surroundings import around_face
from training.stages.edits import Edits
from training.stages.light import LightStage, astray, statistics
from training.stages.pairs import PairSet
from training.stages.protocol import StageOptions
from training.stages.windows import PixelWeights, laid_over, picture_loss

FITTED_EACH = 8
"""Edits of each photo on which telling turns of the head is fitted."""


@dataclass(frozen=True, kw_only=True)
class LightEditorOptions(StageOptions):
    """Settings of the light editor's stage."""

    batch: int = 2
    """Edits of synthetic pairs a step."""
    photos: int = 1
    """Photos a step: edited, but with strength zero in every fourth."""
    window: int = 36
    """Side in feature cells of the window that is rendered, margins included."""
    estimated: float = 0.8
    """Share of the edits at e4e's code in place of the exact one."""
    astray: float = 0.3
    """Largest share of the way to another pair's code by which e4e's code of a synthetic pair is moved."""
    interpolated: float = 0.15
    """Share of the edits that go towards another pair's code."""
    learning_rate: float = 8e-4
    picture: PixelWeights = field(default_factory=lambda: PixelWeights(l1=1.0, l2=0.0, gradient=0.5, lpips=0.8))
    identity: float = 0.2
    keep: float = 2.0
    """Weight of what an edited photo must keep."""
    photo_identity: float = 0.5
    """Weight of how much more of the person an edit of a photo loses than the same edit of the generator's picture."""
    movement: float = 0.3
    """Weight of how far the picture's own e4e code must move along with that of the generator's picture."""
    turning: tuple[str, ...] = ("yaw", "pitch", "pose")
    """Directions that move the whole head: their targets are the generator's pictures from edge to edge."""
    fitted: int = 6_000
    """Edits of photos, to twice the directions' ranges, on which telling these from the others is fitted before the
    first step, where the editor leaves surroundings alone."""
    discrepancy: float = 0.02
    """Weight of the edit-discrepancy regularisation (eq. 3.21), in deviations of the channel."""
    discrepancy_from: int = 0
    ema_images: float = 2_000.0
    bf16: bool = True


class LightEditorStage(LightStage[LightEditorOptions]):
    """Trains the editor of a light system whose other parts are trained.

    Args:
        system: its editor is replaced by a fresh one.
        directions: what is edited; strengths are drawn uniformly from each one's usable range.

    Raises:
        ValueError: if there are no directions.
    """

    name = "editor"
    part = "editor"

    def __init__(
        self,
        system: EditingSystem,
        faces: FaceSet,
        pairs: PairSet,
        directions: Sequence[Direction],
        files: LossFiles,
        options: LightEditorOptions,
        *,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.edits = Edits(directions, system.family, device)
        generator, encoder = system.generator, system.encoder
        # A light family's generator and base encoder are these.
        assert isinstance(generator, MobileGenerator) and isinstance(encoder, LightFeatureStyleEncoder)
        super().__init__(generator, faces, pairs, files, options, photos=options.photos, seed=seed, device=device)
        system.editor = FeatureEditor(self.family)
        if system.editor.transport is not None:
            system.editor.transport.set_statistics(statistics(generator)[0])
        self.system = system.to(device).eval().requires_grad_(False)
        self.editor = system.editor.train().requires_grad_(True)
        self.learn(self.editor)
        if self.editor.reach is not None:
            self.editor.reach.requires_grad_(False)
        self.deviation = encoder.deviation
        self.turns = torch.tensor([float(name in options.turning) for name in self.edits.names], device=device)

    def config(self) -> dict[str, Any]:
        return super().config() | {"directions": self.edits.names}

    def _deltas(self, count: int) -> tuple[Tensor, Tensor]:
        """Random edits, count x N x D, and which of them turn the head, count."""
        choice, strength = self.edits.draw(count)
        return strength[:, None, None] * self.edits.delta_w[choice], self.turns[choice]

    def _free(self, turns: Tensor, origins: Tensor, scale: int) -> Tensor:
        """The share by which edits may change each pixel of windows of a picture, B x 1 x s x s in [0, 1], `scale`
        pixels per cell."""
        side = self.family.feature_resolution * scale
        fading = around_face(side).to(self.device).expand(len(turns), 1, side, side)
        return self.generator.cut(fading, origins, self.options.window, scale).maximum(turns[:, None, None, None])

    def _origins(self, count: int) -> Tensor:
        """Windows around the face more often than at the edges: the mean of two draws."""
        side = self.options.window
        return (self.generator.origins(count, side) + self.generator.origins(count, side)) // 2

    def step(self, step: int) -> dict[str, float | Tensor]:
        o, g = self.options, self.generator
        if step == 0:
            self._fit_reach()
        images, codes = self.pairs.batch(self.pair_batches.indices(step), self.device)
        photos = self.photos(step)
        delta, turns = self._deltas(o.batch + o.photos)
        if float(torch.rand(())) < o.interpolated:
            other = torch.from_numpy(self.pairs.codes[np.random.default_rng(step).integers(len(self.pairs))])
            delta[0] = 0.3 * torch.rand(()) * (other.to(self.device) - codes[0])
            turns[0] = 1.0
        edited_photos = step % 4 != 0
        if not edited_photos:
            delta[o.batch :] = 0
        truth = codes[:, None].expand(-1, self.family.w_rows, -1)
        inputs = torch.cat([images, photos])
        exact = torch.rand(o.batch) >= o.estimated
        with torch.no_grad(), self.autocast():
            w_e = self.system.encode_e4e(inputs).float()
            w_e[: o.batch] = astray(w_e[: o.batch], codes, o.astray)
            w_e[: o.batch][exact] = truth[exact]
            feature, edited = g.lower(w_e), g.lower(w_e + delta)
            w, enhanced = (value.float() for value in self.system.encode(inputs, (w_e, feature)))
        # Cosines are told apart by their third digit, which half precision does not hold.
        carried = self.editor.carry(feature.float(), edited.float(), enhanced)
        with self.autocast():
            discrepancy = self.editor.discrepancy(feature, edited)
            fused = self.editor.fuse(carried, discrepancy).float()
        changed = self.editor.settle(edited - feature, enhanced, carried, fused)
        origins = self._origins(len(inputs))
        w_edited = w + delta
        output = g.upper(g.cut(changed, origins, o.window, 1), w_edited, origins)
        scalars: dict[str, float | Tensor] = {}
        first = slice(0, o.batch)
        total, terms = self._synthetic(output[first], truth, delta[first], turns[first], origins[first], images)
        scalars |= terms
        wanted = g.cut(photos, origins[o.batch :], o.window, g.input_scale)
        shown = g.settled(g.shrink(output[o.batch :]), wanted, origins[o.batch :], g.input_scale)
        if edited_photos:
            before, after = self._drawn(
                feature[o.batch :], edited[o.batch :], w_e[o.batch :], delta[o.batch :], origins[o.batch :]
            )
            still = self._unchanged(before, after)
            still = still.maximum(1.0 - self._free(turns[o.batch :], origins[o.batch :], g.input_scale))
            extra = (still * (shown - wanted).abs()).mean()
            total, scalars["keep"] = total + o.keep * extra, extra.detach()
            ours, theirs, theirs_before = (
                laid_over(photos, window, origins[o.batch :], g.input_scale) for window in (shown, after, before)
            )
            extra = self._movement(ours, photos, theirs, theirs_before)
            total, scalars["photo_movement"] = total + o.movement * extra, extra.detach()
            extra = self._lost_identity(ours, photos, theirs, theirs_before)
            total, scalars["photo_identity"] = total + o.photo_identity * extra, extra.detach()
        else:
            extra, terms = picture_loss(shown, wanted, self.lpips, o.picture)
            total, scalars = total + extra, scalars | {f"photo_{name}": term for name, term in terms.items()}
        regular = ((discrepancy.float() - (fused - carried)) / self.deviation).square().mean()
        scalars["discrepancy"] = regular.detach()
        if step >= o.discrepancy_from:
            total = total + o.discrepancy * regular
        self.update(total, step, o.batch)
        return scalars

    def _synthetic(
        self, output: Tensor, w: Tensor, delta: Tensor, turns: Tensor, origins: Tensor, images: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of edited windows at full size in pixels and at the encoders' size perceptually."""
        o, g = self.options, self.generator
        with torch.no_grad():
            before, after = (
                g.upper(g.cut(g.lower(code), origins, o.window, 1), code, origins) for code in (w, w + delta)
            )
            target = torch.lerp(before, after, self._free(turns, origins, g.scale))
        output = g.settled(output, target, origins, g.scale)
        total, fine = picture_loss(output, target, None, replace(o.picture, l1=0.0, l2=0.0))
        small = [g.shrink(x) for x in (output, target)]
        coarse, terms = picture_loss(small[0], small[1], self.lpips, o.picture)
        # The embedder wants whole faces: both windows are laid over the unedited picture.
        faces = [laid_over(images, part, origins, g.input_scale) for part in small]
        identity = 1.0 - (self.identity(faces[0]) * self.identity(faces[1])).sum(dim=1).mean()
        movement = self._movement(faces[0], images, faces[1], images)
        scalars = {**terms, "fine": fine["gradient"], "identity": identity.detach(), "movement": movement.detach()}
        return total + coarse + o.identity * identity + o.movement * movement, scalars

    def _movement(self, edited: Tensor, start: Tensor, target: Tensor, target_start: Tensor) -> Tensor:
        """The loss on the way that e4e's code moves from `start` to `edited`, beside the whole way from `target_start`
        to `target`: the squared distance to it, as a share of it, mean over pictures B x 3 x h x w."""
        encoder = self.system.e4e
        with self.autocast():
            code = encoder(edited)[:, 0].float()
            with torch.no_grad():
                first, end = (encoder(x)[:, 0].float() for x in (start, target))
                begin = first if target_start is start else encoder(target_start)[:, 0].float()
        way = (end - begin) / encoder.code_deviation
        length = way.square().sum(dim=1)
        share = ((code - first) / encoder.code_deviation * way).sum(dim=1) / length.clamp_min(1e-6)
        # A window that misses the face has no way to speak of.
        return ((1.0 - share).square() * (length / (length + 1.0))).clamp(max=1.0).mean()

    def _lost_identity(self, edited: Tensor, start: Tensor, target: Tensor, target_start: Tensor) -> Tensor:
        """By how much identity falls more from `start` to `edited` than from `target_start` to `target`, mean over
        pictures B x 3 x h x w."""
        with torch.no_grad():
            before, own_before, own_after = (self.identity(x) for x in (start, target_start, target))
        lost = (own_before * own_after).sum(dim=1) - (before * self.identity(edited)).sum(dim=1)
        return lost.clamp_min(0).mean()

    @torch.no_grad()
    def _fit_reach(self) -> None:
        """Fits what tells edits that turn the head, on e4e's codes of photos. Some others are two at once."""
        if (reach := self.editor.reach) is None:
            return
        strengths, turns = [], []
        for batch in range(math.ceil(self.options.fitted / (FITTED_EACH * self.options.photos))):
            with self.autocast():
                w_e = self.system.encode_e4e(self.photos(batch)).float().repeat_interleave(FITTED_EACH, dim=0)
            (delta, turning), (second, second_turning) = self._deltas(len(w_e)), self._deltas(len(w_e))
            both = (torch.rand(len(w_e), device=w_e.device) < 0.25) & (turning + second_turning == 0)
            delta = 2 * torch.rand(len(w_e), 1, 1, device=w_e.device) * delta + both[:, None, None] * second
            with self.autocast():
                feature = self.generator.lower(w_e[::FITTED_EACH]).repeat_interleave(FITTED_EACH, dim=0)
                difference = self.generator.lower(w_e + delta) - feature
            strengths.append(reach.strengths(difference.float()))
            turns.append(turning)
        reach.fit(torch.cat(strengths), torch.cat(turns))

    @torch.no_grad()
    def _drawn(
        self, feature: Tensor, edited: Tensor, w_e: Tensor, delta: Tensor, origins: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Windows of the generator's own pictures of F and of the edited one, at the encoders' size."""
        g, side = self.generator, self.options.window
        before, after = (
            g.shrink(g.upper(g.cut(f, origins, side, 1), code, origins))
            for f, code in ((feature, w_e), (edited, w_e + delta))
        )
        return before, after

    def _unchanged(self, before: Tensor, after: Tensor) -> Tensor:
        """The share by which a window's pixels must stay, B x 1 x h x w in [0, 1]: 1 where G's own picture does not
        change."""
        change = F.avg_pool2d((after - before).abs().mean(dim=1, keepdim=True), 9, 1, 4, count_include_pad=False)
        return torch.exp(-change * 40.0)

    @torch.no_grad()
    def grid(self) -> Tensor:
        """Columns: photos; rows: photo, reconstruction, then the first directions at three quarters of both ends."""
        images = self.faces.tensor(np.linspace(0, len(self.faces) - 1, 5).astype(int), self.device)
        inversion = self.system.invert(images)
        rows = [images, self.generator.shrink(self.generator.upper(inversion.feature, inversion.w))]
        for index, code in enumerate(self.edits.delta_w[:5]):
            for end in (self.edits.low, self.edits.high):
                delta = 0.75 * end[index] * code
                edited = self.system.features(inversion.w_e + delta)
                changed = self.average.module(inversion.generator_feature, edited, inversion.feature)
                rows.append(self.generator.shrink(self.generator.upper(changed, inversion.w + delta)))
        return torch.stack(rows)
