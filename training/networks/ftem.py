"""Feature tensor enhancement module, FTEM (eq. 3.2): the feature attends to the W+ rows that shape it."""

from __future__ import annotations

from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.attention import attention_weights, merge_heads, split_heads, zero_
from training.networks.ir import conv3x3


class LatentCrossAttention(nn.Module):
    """Multi-head attention of feature pixels (query) to W+ rows (key, value).

    Eq. 3.2's d is the width of one head, as usual with several heads. The last projection starts at zero.
    """

    def __init__(self, channels: int, style_dim: int, heads: int, *, out_projection: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(style_dim, channels)
        self.value = nn.Linear(style_dim, channels)
        self.out = nn.Linear(channels, channels) if out_projection else nn.Identity()
        zero_(self.out if out_projection else self.value)

    def forward(self, feature: Tensor, w_rows: Tensor) -> Tensor:
        """Feature B x C x H x W and rows B x k x D to a residual B x C x H x W."""
        height, width = feature.shape[2:]
        query = split_heads(self.query(feature.flatten(2).transpose(1, 2)), self.heads)
        key = split_heads(self.key(w_rows), self.heads)
        value = split_heads(self.value(w_rows), self.heads)
        y = self.out(merge_heads(attention_weights(query, key) @ value))
        return y.transpose(1, 2).unflatten(2, (height, width))


class RefinementBlock(nn.Module):
    """x + conv3x3(PReLU(conv3x3(x))), the second convolution starting at zero: B x C x H x W to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels, bias=True)
        self.prelu = nn.PReLU(channels)
        self.conv2 = conv3x3(channels, channels, bias=True)
        zero_(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.prelu(self.conv1(x)))


class FeatureTensorEnhancement(nn.Module):
    """f' = Res(Attention(f, w_k) + f), eq. 3.2.

    At initialisation f' = f: every residual branch ends in a layer that starts at zero. With the editor option
    `ftem` off (ablation "w/o FTEM") it has no tensors and f' = f always. With an inner width r, the equation holds at
    that width: f' = f + back(Res(Attention(r, w_k) + r)), r = reduce(f), where `back` starts at zero.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        options = family.editor
        channels = options.inner_width or family.feature_channels
        self.enabled = options.ftem
        self.rows = family.feature_rows
        self.inner = bool(options.inner_width)
        if self.enabled:
            if self.inner:
                self.reduce = nn.Conv2d(family.feature_channels, channels, 1)
                self.back = nn.Conv2d(channels, family.feature_channels, 1)
                zero_(self.back)
            self.attention = LatentCrossAttention(
                channels, family.style_dim, options.heads, out_projection=options.ftem_out_projection
            )
            self.refine = nn.Sequential(*(RefinementBlock(channels) for _ in range(options.ftem_blocks)))

    def forward(self, feature: Tensor, w_plus: Tensor) -> Tensor:
        """Feature f B x C x H x W and code B x N x D, of which the first k rows are read, to f' B x C x H x W."""
        if not self.enabled:
            return feature
        x = self.reduce(feature) if self.inner else feature
        x = self.refine(x + self.attention(x, w_plus[:, : self.rows]))
        return feature + self.back(x) if self.inner else x
