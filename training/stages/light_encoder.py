"""Stage c of the light family: E = E0 + FTEM (eq. 3.12-3.17) on windows of photos and of synthetic pairs.

A light E0 starts from the frozen e4e's inversion. Photos are compared at the encoders' size: G renders four times as
large as the photos are. Synthetic pairs come with the truth for the feature, the code and the picture at full size;
their codes are led astray, since e4e misses photos by more than pairs that it learnt. No discriminator comes with the
generator, so there is no adversarial term; the feature regularisation (eq. 3.16) holds f' to G(w_k).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from training.data import FaceSet
from training.losses.image import LossFiles
from training.networks.light import LightE4EEncoder, LightFeatureStyleEncoder
from training.networks.mobilestylegan import MobileGenerator
from training.stages.encoder import Encoder
from training.stages.light import LightStage, astray, statistics
from training.stages.pairs import PairSet
from training.stages.protocol import StageOptions
from training.stages.windows import PixelWeights, picture_loss


@dataclass(frozen=True, kw_only=True)
class LightEncoderOptions(StageOptions):
    """Settings of the light encoder's stage."""

    batch: int = 4
    """Windows a step, each of another photo or pair."""
    window: int = 24
    """A window's side in feature cells, margins included."""
    learning_rate: float = 5e-4
    picture: PixelWeights = field(default_factory=lambda: PixelWeights(lpips=1.0))
    synthetic_every: int = 2
    """Steps from one batch of synthetic pairs to the next."""
    astray: float = 0.4
    """Largest share of the way to another pair's code by which e4e's code of a synthetic pair is moved."""
    truth: float = 0.15
    """Weight of the synthetic feature's absolute error, in deviations of its channel."""
    code: float = 0.1
    """Weight of the synthetic code's squared error, in deviations of W."""
    feature: float = 0.01
    """Weight of the feature regularisation on photos (eq. 3.16), in deviations of the channel."""
    ema_images: float = 4_000.0
    bf16: bool = True


class LightEncoderStage(LightStage[LightEncoderOptions]):
    """Trains `Encoder` of a light family against a frozen MobileStyleGAN, from the codes of a frozen e4e."""

    name = "encoder"
    part = "encoder"

    def __init__(
        self,
        generator: MobileGenerator,
        faces: FaceSet,
        pairs: PairSet,
        e4e: LightE4EEncoder,
        files: LossFiles,
        options: LightEncoderOptions,
        *,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(generator, faces, pairs, files, options, photos=options.batch, seed=seed, device=device)
        self.e4e = e4e.to(device).eval().requires_grad_(False)
        self.encoder = Encoder(self.family)
        # A light family's base encoder is the light one.
        assert isinstance(self.encoder.encoder, LightFeatureStyleEncoder)
        self.base = self.encoder.encoder
        self.base.set_statistics(*statistics(generator))
        self.learn(self.encoder)

    def step(self, step: int) -> dict[str, float | Tensor]:
        o, g = self.options, self.generator
        codes = None
        if step % o.synthetic_every == o.synthetic_every - 1:
            images, codes = self.pairs.batch(self.pair_batches.indices(step), self.device)
        else:
            images = self.photos(step)
        origins = g.origins(o.batch, o.window)
        offsets, prior = self._inverted(images, codes)
        with self.autocast():
            w = self.base.offsets(images, offsets).float() + self.mean
            window = g.cut(images, origins, o.window, g.input_scale)
            feature = self.base.feature(window, g.cut(prior, origins, o.window, 1))
            feature = self.encoder.ftem(feature, w).float()
        deviation = self.base.deviation
        if codes is not None:
            total, scalars = self._synthetic(feature, w, codes, origins, deviation)
        else:
            output = g.settled(g.shrink(g.upper(feature, w, origins)), window, origins, g.input_scale)
            total, terms = picture_loss(output, window, self.lpips, o.picture)
            # The rows of w below the feature are e4e's, so G(w_k) is what E0 started from.
            regular = ((feature - g.cut(prior, origins, o.window, 1)) / deviation).square().mean()
            total = total + o.feature * regular
            scalars: dict[str, float | Tensor] = {**terms, "feature": regular.detach()}
        self.update(total, step, o.batch)
        return scalars

    @torch.no_grad()
    def _inverted(self, images: Tensor, codes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """e4e's offsets B x N x D, of synthetic pairs led astray, and the generator's feature at them."""
        o = self.options
        with self.autocast():
            offsets = self.e4e(images).float()
        if codes is not None:
            offsets = astray(offsets, codes - self.mean, o.astray)
        return offsets, self.generator.lower(offsets + self.mean)

    def _synthetic(
        self, feature: Tensor, w: Tensor, codes: Tensor, origins: Tensor, deviation: Tensor
    ) -> tuple[Tensor, dict[str, float | Tensor]]:
        o, g = self.options, self.generator
        truth = codes[:, None].expand_as(w)
        with torch.no_grad():
            own = g.cut(g.lower(truth), origins, o.window, 1)
            target = g.upper(own, truth, origins)
        output = g.settled(g.upper(feature, w, origins), target, origins, g.scale)
        total, terms = picture_loss(output, target, None, o.picture)
        off = ((feature - own) / deviation).abs().mean()
        above = slice(self.family.feature_conv, None)
        code = ((w - truth)[:, above] / self.base.code_deviation).square().mean()
        scalars: dict[str, float | Tensor] = {f"full_{name}": term for name, term in terms.items()}
        return total + o.truth * off + o.code * code, scalars | {"truth": off.detach(), "code": code.detach()}

    @torch.no_grad()
    def grid(self) -> Tensor:
        """Photos and their reconstructions at the encoders' size."""
        images = self.faces.tensor(np.linspace(0, len(self.faces) - 1, 6).astype(int), self.device)
        w, feature = self.average.module(images, self.mean, *self._inverted(images))
        return torch.stack([images, self.generator.shrink(self.generator.upper(feature, w))])
