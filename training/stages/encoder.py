"""Stage c: the high-fidelity encoder E = E0 + FTEM (paper section 3.3, eq. 3.12-3.17).

Both reconstructions are trained, G(f', w_r) and G(w); the discriminator is trained on with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from pytorch_optimizer import Ranger
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from engines.family import ModelFamily
from training.data import FaceSet, encoder_input
from training.losses.image import ImageLoss, ImageWeights, LossFiles
from training.networks.build import base_encoder
from training.networks.discriminator import Discriminator
from training.networks.ftem import FeatureTensorEnhancement
from training.networks.latents import mean_w
from training.networks.stylegan2 import Generator
from training.stages.base import TrainingStage
from training.stages.protocol import Averaged, StageOptions, descend, set_requires_grad


@dataclass(frozen=True, kw_only=True)
class EncoderOptions(StageOptions):
    """Settings of the encoder stage; the defaults are the paper's (section 4.1), which trains for 120,000 steps."""

    batch: int = 4
    learning_rate: float = 1e-4
    image: ImageWeights = field(default_factory=ImageWeights)
    w_images: int = 0
    """Images of a batch, the first ones, for which G(w) is rendered and judged too; 0: all."""
    adversarial: float = 0.01
    adversarial_from: int = 45_000
    """Step from which the adversarial loss (eq. 3.15) counts."""
    adversarial_every: int = 1
    """Steps between two, accordingly heavier, adversarial terms and discriminator steps."""
    discriminator_rate: float = 1e-4
    r1_gamma: float = 0.1
    feature: float = 0.01
    """Weight of the feature regularisation (eq. 3.16)."""
    upper_rate: float = 0.0
    """Learning rate of the generator's upper half, trained with E on the same losses; 0 keeps it frozen, as the paper
    does. The upper half of a small, shortly trained generator bounds how faithful any E can be. What lies below the
    feature stays, so W+ codes, directions and e4e remain valid."""
    bf16: bool = False


class Encoder(nn.Module):
    """E0 and FTEM as one trainable module: image to offsets and enhanced feature (eq. 3.1-3.3)."""

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.encoder = base_encoder(family)
        self.ftem = FeatureTensorEnhancement(family)

    def forward(self, image: Tensor, mean: Tensor, *editable: Tensor) -> tuple[Tensor, Tensor]:
        """Args: image B x 3 x h x w; mean D, the latent average; what a light E0 starts from. Returns w B x N x D and
        f' B x C x H x W."""
        offsets, feature = self.encoder(image, *editable)
        w = offsets + mean
        return w, self.ftem(feature, w)


def reconstruct(generator: Generator, feature: Tensor, w: Tensor, rgb: Tensor) -> Tensor:
    """Eq. 3.4; `rgb`, the lower half's skip, is used only by families that keep it."""
    return generator.upper(feature, w, rgb if generator.family.rgb_skip else None)


class EncoderStage(TrainingStage[EncoderOptions]):
    """Trains `Encoder` against a frozen generator and a discriminator of squares as wide as the photos.

    Pictures are compared and judged as photos are (see `training.data.as_photos`): at the generator's own size where
    photos have that, else averaged down to theirs. The generator learns with E if `generator_optimizer` is set, its
    upper half if `EncoderOptions.upper_rate` is.
    """

    name = "encoder"

    def __init__(
        self,
        family: ModelFamily,
        generator: Generator,
        discriminator: Discriminator,
        faces: FaceSet,
        files: LossFiles,
        options: EncoderOptions,
        *,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(family, faces, options, seed=seed, device=device)
        self.generator = generator.to(device)
        self.discriminator = discriminator.to(device)
        self.encoder = Encoder(family).to(device, memory_format=torch.channels_last)
        self.average = Averaged(self.encoder, half_life=options.ema_images)
        self.loss = ImageLoss(files, options.image).to(device)
        self.mean = mean_w(self.generator)
        self.generator_optimizer: Optimizer | None = None
        self.optimizers = {
            "encoder": Ranger(self.encoder.parameters(), lr=options.learning_rate),
            "discriminator": Adam(self.discriminator.parameters(), lr=options.discriminator_rate, betas=(0.0, 0.99)),
        }
        self.generator_average: Averaged | None = None
        if options.upper_rate:
            self.generator_average = Averaged(self.generator, half_life=options.ema_images)
            upper = [p for layer in self.generator.upper_modules() for p in layer.parameters()]
            for parameter in upper:
                parameter.requires_grad_(True)
            self.optimizers["upper"] = Adam(upper, options.upper_rate, betas=(0.9, 0.99))

    @property
    def modules(self) -> dict[str, nn.Module]:
        modules = {"encoder": self.encoder, "discriminator": self.discriminator, "average": self.average}
        if self.generator_average is not None:
            modules |= {"generator": self.generator, "generator_average": self.generator_average}
        return modules

    def step(self, step: int) -> dict[str, float | Tensor]:
        o = self.options
        images = self.photos(step).contiguous(memory_format=torch.channels_last)
        adversarial = step >= o.adversarial_from and step % o.adversarial_every == 0
        with self.autocast():
            w, feature = self.encoder(encoder_input(images, self.family), self.mean)
            w = w.float()
            own_feature, rgb = self.generator.lower(w)
            assert rgb is not None  # `lower` leaves it out only if told to
            output = self.as_photos(reconstruct(self.generator, feature, w, rgb))
            some = slice(o.w_images or None)
            output_w = self.as_photos(self.generator.upper(own_feature[some], w[some], rgb[some]))
            total, terms = self.loss(output, images)
            total_w, terms_w = self.loss(output_w, images[some])
            regular = F.mse_loss(feature.float(), own_feature.float())
            total = total + total_w + o.feature * regular
            if adversarial:
                set_requires_grad([self.discriminator], False)
                fooled = F.softplus(-self._judge(output)).mean() + F.softplus(-self._judge(output_w)).mean()
                total = total + o.adversarial * o.adversarial_every * fooled
        descend(total, self.optimizers["encoder"], self.generator_optimizer or self.optimizers.get("upper"))
        scalars = {**terms, **{f"w_{k}": v for k, v in terms_w.items()}, "feature": regular.detach()}
        if adversarial:
            scalars |= self._discriminator_step(images, torch.cat([output, output_w]).detach().float())
        self.average.update(self.encoder, (step + 1) * o.batch, o.batch)
        if self.generator_average is not None:
            self.generator_average.update(self.generator, (step + 1) * o.batch, o.batch)
        return scalars

    def _judge(self, images: Tensor) -> Tensor:
        """The discriminator's logit of photos or of pictures as photos are, B x 1. It takes squares: above and below
        the rows that a family keeps there is black, as in the photos that its generator was trained on."""
        margin = (images.shape[3] - images.shape[2]) // 2
        return self.discriminator(F.pad(images, (0, 0, margin, margin), value=-1.0) if margin else images)

    def _discriminator_step(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        o = self.options
        set_requires_grad([self.discriminator], True)
        source = real.detach().requires_grad_(True)
        real_logit = self._judge(source)
        loss = F.softplus(-real_logit).mean() + F.softplus(self._judge(fake)).mean()
        (gradient,) = torch.autograd.grad(real_logit.sum(), source, create_graph=True)
        penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
        descend(loss + o.r1_gamma / 2 * penalty, self.optimizers["discriminator"])
        return {"d_loss": loss.detach()}

    @torch.no_grad()
    def grid(self) -> Tensor:
        images = self.faces.tensor(slice(0, 8), self.device)
        w, feature = self.average.module(encoder_input(images, self.family), self.mean)
        generator = self.generator if self.generator_average is None else self.generator_average.module
        own_feature, rgb = generator.lower(w)
        output = reconstruct(generator, feature, w, rgb)
        both = output, generator.upper(own_feature, w, rgb)
        return torch.stack([images, *(self.as_photos(picture) for picture in both)])
