"""Stage b of the light family: e4e as one code of W, on synthetic pairs, whose code is known, and on photos.

The trunk starts as the identity embedder, if that is a MobileFaceNet, and its linear map as the best one on pairs. A
code's error counts in W, in deviations of its elements, and in the generator's feature, which the editor compares.
On photos the picture around the face is compared, and short offsets hold their codes to W.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.data import FaceSet
from training.losses.image import LossFiles
from training.networks.light import LightE4EEncoder
from training.networks.mobilefacenet import load_trunk
from training.networks.mobilestylegan import MobileGenerator
from training.stages.light import LightStage, statistics
from training.stages.pairs import PairSet
from training.stages.protocol import StageOptions
from training.stages.windows import PixelWeights, laid_over, picture_loss

FITTED = 10_000
"""Pairs on which the linear map is fitted before the first step, at most."""
FACE_CELLS = (8, 10, 44)
"""Row and column of the first cell of the window around the face, and its side, at a feature of 64 cells."""


@dataclass(frozen=True, kw_only=True)
class LightE4EOptions(StageOptions):
    """Settings of the light e4e's stage."""

    batch: int = 24
    """Synthetic pairs a step."""
    photos: int = 2
    """Photos a step, whose faces are rendered."""
    photos_from: int = 0
    """Step from which photos are used."""
    learning_rate: float = 2e-4
    head_rate: float = 4e-5
    """Learning rate of the linear map, whose thousands of inputs move together, and which starts fitted."""
    code: float = 1.0
    """Weight of the code's squared error, in deviations of W."""
    feature: float = 0.5
    """Weight of the squared error of G(w^{1:k}), in deviations of the channel."""
    picture: PixelWeights = field(default_factory=lambda: PixelWeights(l1=0.5, l2=0.5, gradient=0.0, lpips=1.0))
    identity: float = 0.5
    offset: float = 0.02
    """Weight of the squared length of photos' offsets, in deviations of W: codes far from W render badly."""
    ema_images: float = 8_000.0
    bf16: bool = True


class LightE4EStage(LightStage[LightE4EOptions]):
    """Trains `LightE4EEncoder` against a frozen MobileStyleGAN."""

    name = "e4e"
    part = "encoder"

    def __init__(
        self,
        generator: MobileGenerator,
        faces: FaceSet,
        pairs: PairSet,
        files: LossFiles,
        options: LightE4EOptions,
        *,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(generator, faces, pairs, files, options, photos=options.photos, seed=seed, device=device)
        features, mapped = statistics(generator)
        self.feature_deviation = features.std(dim=(0, 2, 3), keepdim=True).to(device)
        self.encoder = LightE4EEncoder(self.family)
        self.encoder.set_statistics(mapped)
        load_trunk(self.encoder.trunk, files.require("identity"))
        trunk = [*self.encoder.trunk.parameters(), *self.encoder.reduce.parameters()]
        linear = {"params": self.encoder.linear.parameters(), "lr": options.head_rate}
        self.learn(self.encoder, [{"params": trunk}, linear])
        self.deviation = self.encoder.code_deviation

    @torch.no_grad()
    def _fit(self) -> None:
        """Starts a fresh encoder from the best linear map of the trunk's features."""
        count = min(len(self.pairs), FITTED)
        batches = [self.pairs.batch(np.arange(i, min(i + 50, count)), self.device) for i in range(0, count, 50)]
        last = torch.cat([self.encoder.trunk(F.avg_pool2d(images, 2))[1] for images, _ in batches[:10]])
        flat = last.transpose(0, 1).flatten(1)
        # The principal components of the last map's channels.
        axes = torch.linalg.eigh(torch.cov(flat))[1][:, -self.encoder.reduce.out_channels :].T
        weight, bias = self.encoder.reduce.parameters()
        weight.copy_(axes[:, :, None, None])
        bias.copy_(-axes @ flat.mean(dim=1))
        inputs = torch.cat([self.encoder.inputs(images) for images, _ in batches])
        self.encoder.fit(inputs, torch.cat([codes for _, codes in batches]), self.mean)
        self.average.module.load_state_dict(self.encoder.state_dict())

    def step(self, step: int) -> dict[str, float | Tensor]:
        o, g = self.options, self.generator
        if not self.encoder.linear.weight.any():
            self._fit()
        images, codes = self.pairs.batch(self.pair_batches.indices(step), self.device)
        faces = None
        if step >= o.photos_from:
            faces = self.photos(step)
            images = torch.cat([images, faces])
        with self.autocast():
            offsets = self.encoder(images).float()
        count = len(codes)
        w = offsets[:count] + self.mean
        truth = codes[:, None].expand_as(w)
        code = ((w[:, 0] - codes) / self.deviation).square().mean()
        some = slice(0, 4)
        with torch.no_grad():
            wanted = g.lower(truth[some])
        feature = ((g.lower(w[some]) - wanted) / self.feature_deviation).square().mean()
        total = o.code * code + o.feature * feature
        scalars: dict[str, float | Tensor] = {"code": code.detach(), "feature": feature.detach()}
        if faces is not None:
            extra, terms = self._photos(offsets[count:], faces)
            total, scalars = total + extra, scalars | terms
        self.update(total, step, len(images))
        return scalars

    def _photos(self, offsets: Tensor, faces: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        o, g = self.options, self.generator
        w = offsets + self.mean
        row, column, side = (n * self.family.feature_resolution // 64 for n in FACE_CELLS)
        origins = torch.tensor([[row, column]]).expand(len(w), 2)
        feature = g.cut(g.lower(w), origins, side, 1)
        target = g.cut(faces, origins, side, g.input_scale)
        output = g.settled(g.shrink(g.upper(feature, w, origins)), target, origins, g.input_scale)
        total, terms = picture_loss(output, target, self.lpips, o.picture)
        # The embedder wants whole aligned faces: the rendered part is laid over the photo.
        composed = laid_over(faces, output, origins, g.input_scale)
        identity = 1.0 - (self.identity(composed) * self.identity(faces)).sum(dim=1).mean()
        offset = (offsets[:, 0] / self.deviation).square().mean()
        total = total + o.identity * identity + o.offset * offset
        scalars = {f"photo_{name}": term for name, term in terms.items()}
        return total, scalars | {"photo_identity": identity.detach(), "offset": offset.detach()}

    @torch.no_grad()
    def grid(self) -> Tensor:
        """Photos and G(w_e), then pairs and G(w_e), at the encoders' size."""
        photos = self.faces.tensor(np.linspace(0, len(self.faces) - 1, 6).astype(int), self.device)
        pairs = self.pairs.batch(np.arange(6), self.device)[0]
        rows = []
        for images in (photos, pairs):
            w = self.average.module(images) + self.mean
            rows += [images, self.generator.shrink(self.generator.upper(self.generator.lower(w), w))]
        return torch.stack(rows)
