"""CLCAE (Liu et al. 2023): codes and a 16 x 16 feature as residuals of one base code, by cross-attention."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.methods.fs import coarse_feature
from training.methods.generator import TappedGenerator, input_point
from training.methods.protocol import CARS, FACES, Method, MethodInfo, squared
from training.networks.attention import attention_weights, merge_heads, split_heads
from training.networks.e4e import FeaturePyramid, pyramid_level, style_head
from training.networks.ir import conv3x3

HEADS = 4


class PackedAttention(nn.Module):
    """Multi-head attention with the projections of query, key and value in one tensor, in this order."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """B x T x C and B x S x C to B x T x C."""
        width = query.shape[2]
        q = F.linear(query, self.in_proj_weight[:width], self.in_proj_bias[:width])
        k, v = F.linear(memory, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=2)
        q, k, v = (split_heads(t, self.heads) for t in (q, k, v))
        return self.out_proj(merge_heads(attention_weights(q, k) @ v))


class CrossAttentionBlock(nn.Module):
    """Attention and a ReLU MLP, each with a residual path and a norm after the sum. `norm1` is never used."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.multihead_attn = PackedAttention(width, HEADS)
        self.linear1 = nn.Linear(width, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """B x T x C and B x S x C to B x T x C."""
        t = self.norm2(query + self.multihead_attn(query, memory))
        return self.norm3(t + self.linear2(F.relu(self.linear1(t))))


class ContentLayer(nn.Module):
    """Two strided convolutions: B x C x 4h x 4w to B x C x h x w."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            conv3x3(in_channels, channels, 2, bias=True),
            nn.LeakyReLU(0.01),
            conv3x3(channels, channels, 2, bias=True),
            nn.LeakyReLU(0.01),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class Evidence(NamedTuple):
    """The outputs of the encoder's trunk and heads for an image, before any attention."""

    base: Tensor
    """b, an offset in W: B x D."""
    values: Tensor
    """v_1 to v_(N-1), B x (N-1) x D."""
    fine: Tensor
    """The pyramid's finest map, B x D x h x w."""


class ContrastiveEncoder(FeaturePyramid):
    """Image, less the mean image, to a base code, one offset per row and the feature."""

    def __init__(self, family: ModelFamily) -> None:
        """
        Raises:
            ValueError: if the pyramid, the codes and the feature differ in width: they attend to one another.
        """
        super().__init__(family)
        width = family.style_dim
        if family.head_width != width:
            raise ValueError(f"family {family.name}: CLCAE needs head_width {family.head_width} = style_dim {width}")
        self.styles = nn.ModuleList([style_head(family, 0)])
        self.styles_others = nn.ModuleList(style_head(family, row) for row in range(1, family.w_rows))
        self.cross_attention = nn.ModuleList(CrossAttentionBlock(width) for _ in range(family.w_rows))
        self.feature_cross_attention = CrossAttentionBlock(width)
        self.content_layer = ContentLayer(width, coarse_feature(family).feature_channels)

    def evidence(self, image: Tensor) -> Evidence:
        """B x 3 x h x w, the mean image already taken off."""
        maps = self.pyramid(image)
        values = [head(maps[pyramid_level(row)]) for row, head in enumerate(self.styles_others, 1)]
        return Evidence(self.styles[0](maps[0]), torch.stack(values, dim=1), maps[2])

    def attend(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Offsets B x N x D from the base code and the feature B x C x h x w, for a base code that may be edited."""
        base, values, fine = evidence
        base = base[:, None]
        memory = torch.cat([base, values], dim=1).split(1, dim=1)
        offsets = [block(base, value) for block, value in zip(self.cross_attention, memory, strict=True)]
        tokens = self.feature_cross_attention(fine.flatten(2).transpose(1, 2), base)
        attended = tokens.transpose(1, 2).unflatten(2, fine.shape[2:])
        return torch.cat(offsets, dim=1), self.content_layer(squared(attended))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image B x 3 x h x w less the mean image to offsets B x N x D, base B x D and feature B x C x h x w."""
        evidence = self.evidence(image)
        offsets, feature = self.attend(evidence)
        return offsets, evidence.base, feature


class CLCAEInversion(NamedTuple):
    """Code, features, and what an edit of the base code starts from."""

    w: Tensor
    """B x N x D."""
    feature: Tensor
    """f of the encoder, B x C x h x w."""
    generator_feature: Tensor
    """The generator's own for w, B x C x h x w."""
    base: Tensor
    values: Tensor
    fine: Tensor
    """The outputs of trunk and heads, as `Evidence` has them."""


class CLCAE(Method):
    """f~ = f + G(w~)[5] - G(w)[5] enters the generator of w~.

    An edit in W (B x D, as with InterFaceGAN) moves the base code inside the encoder, so offsets and feature follow.
    The published script encodes the image a second time for that; all that depends on the base code is the attention,
    so the trunk and heads are not run again here. An edit in W+ (as with GANSpace) moves the code alone.

    `mean_image` is taken off the photo; zero until weights are loaded.
    """

    info = MethodInfo(
        key="clcae",
        title="CLCAE",
        paper="Liu et al. 2023, Delving StyleGAN inversion for image editing: a foundation latent space viewpoint",
        families=(FACES, CARS),
        licence="MIT (code and weights, as its readme says)",
        convention="parameters not reproduced; all tensors; encoder + 3 generator passes",
    )
    edit_reads = ("generator_feature", "base", "values", "fine")
    reconstruct_reads = ("w", "feature", "generator_feature")
    mean_image: Tensor

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.set_family(family, mean_rows=1)
        self.point = input_point(coarse_feature(family).feature_resolution)
        self.encoder = ContrastiveEncoder(family)
        self.decoder = TappedGenerator(family)
        self.register_buffer("mean_image", torch.zeros(3, *family.encoder_size))

    def code(self, offsets: Tensor, base: Tensor) -> Tensor:
        """Offsets B x N x D and base code B x D to the code B x N x D."""
        return offsets + (base + self.latent_avg)[:, None]

    def invert(self, image: Tensor) -> CLCAEInversion:
        evidence = self.encoder.evidence(image - self.mean_image)
        offsets, feature = self.encoder.attend(evidence)
        w = self.code(offsets, evidence.base)
        return CLCAEInversion(w, feature, self.decoder.feature(w, self.point), *evidence)

    def edit(self, inversion: CLCAEInversion, delta: Tensor) -> Tensor:
        if delta.dim() == 2:
            base = inversion.base + delta
            offsets, feature = self.encoder.attend(Evidence(base, inversion.values, inversion.fine))
            w = self.code(offsets, base)
        else:
            w, feature = inversion.w + delta, inversion.feature
        return self.decoder.render(w, self.point, lambda x: feature + x - inversion.generator_feature)

    def edit_rows(self, inversion: CLCAEInversion, delta: Tensor, *style_delta: Tensor) -> Tensor:
        # Per image: the base code is moved by those edits that are in W, and the others are left to be added.
        same = (delta - delta[:, :1]).abs().amax(dim=(1, 2)) == 0
        moved = torch.where(same[:, None], delta[:, 0], 0.0)
        evidence = Evidence(inversion.base + moved, inversion.values, inversion.fine)
        offsets, feature = self.encoder.attend(evidence)
        left = torch.where(same[:, None, None], 0.0, delta)
        return self.edit(inversion._replace(w=self.code(offsets, evidence.base), feature=feature), left)

    def reconstruct(self, inversion: CLCAEInversion) -> Tensor:
        # The code as it is: the edit by nothing in W would compute it again.
        return self.edit(inversion, torch.zeros_like(inversion.w))
