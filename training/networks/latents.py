"""The common part of the generators: latent codes, and the styles that layers take from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engines.family import ModelFamily


class StyleGenerator(nn.Module):
    """A generator in two halves, `lower` and `upper`, that meet at the family's feature tensor.

    Layer i in the order of `ModelFamily.style_channels` takes its style from one row of the W+ code; a style delta, if
    given, is added to the concatenation of all styles.
    """

    family: ModelFamily
    style: nn.Module
    """The mapping network, which a subclass makes."""

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.family = family

    def mapping(self, z: Tensor) -> Tensor:
        """Z to W: B x D to B x D."""
        return self.style(z)

    def broadcast(self, w: Tensor) -> Tensor:
        """W to W+: B x D to B x N x D, the same code in every row."""
        return w[:, None, :].expand(-1, self.family.w_rows, -1)

    def lower(
        self, w_plus: Tensor, style_delta: Tensor | None = None, *, random_noise: bool = False, with_rgb: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Synthesis up to the feature tensor: the feature B x C x H x W, and the RGB skip, if there is one."""
        raise NotImplementedError

    def upper(
        self,
        feature: Tensor,
        w_plus: Tensor,
        rgb: Tensor | None = None,
        style_delta: Tensor | None = None,
        *,
        random_noise: bool = False,
    ) -> Tensor:
        """Synthesis from a feature tensor B x C x H x W: the image B x 3 x S x S."""
        raise NotImplementedError

    def forward(self, w_plus: Tensor, style_delta: Tensor | None = None, *, random_noise: bool = False) -> Tensor:
        """W+ to image: B x N x D to B x 3 x S x S, nominally in [-1, 1], not clamped."""
        feature, rgb = self.lower(w_plus, style_delta, random_noise=random_noise)
        return self.upper(feature, w_plus, rgb, style_delta, random_noise=random_noise)

    @property
    def _feature_blocks(self) -> int:
        """The number of blocks below the feature."""
        return (self.family.feature_conv - 1) // 2

    def _split(self, style_delta: Tensor | None) -> tuple[Tensor, ...] | None:
        """A style delta B x sum(style_channels) to one for each layer."""
        return None if style_delta is None else style_delta.split(self.family.style_channels, dim=1)

    def _style(self, modulation: nn.Module, index: int, w_plus: Tensor, delta: Sequence[Tensor] | None) -> Tensor:
        """The style of layer `index`."""
        style = modulation(w_plus[:, self.family.style_rows[index]])
        return style if delta is None else style + delta[index]


@torch.no_grad()
def mean_w(generator: StyleGenerator, samples: int = 20_000, seed: int = 0) -> Tensor:
    """The mean W code (D), from `samples` mapped draws: the latent average encoders start from."""
    device = next(generator.parameters()).device
    source = torch.Generator().manual_seed(seed)
    z = torch.randn(samples, generator.family.style_dim, generator=source).to(device)
    return torch.cat([generator.mapping(part) for part in z.split(4096)]).mean(dim=0)
