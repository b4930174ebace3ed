"""Edit-discrepancy extraction module, EDEM (eq. 3.5-3.7): what an edit changes in feature space, and where.

A Swin transformer with cross-attention: queries come from the running feature, which starts as the generator's own
feature F = G(w_e^{1:k}); keys and values come from the edited one, F~ = G(w~_e^{1:k}).

Index and mask tensors of the windows are worked out in `forward` from one-dimensional buffers, so that neither the
state dict nor an exported graph carries tables of the size of the attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.attention import attention_weights, merge_heads, split_heads, zero_

MASKED = -100.0
"""The number added to the score of a pair that shares a window only by the cyclic shift. Half precision can hold it."""


def partition(x: Tensor, window: int) -> Tensor:
    """B x H x W x C to (B windows) x window^2 x C, windows and their pixels in row-major order."""
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return x.transpose(2, 3).flatten(0, 2).flatten(1, 2)


def merge(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Joins windows again, the inverse of `partition`: back to B x H x W x C."""
    x = windows.unflatten(1, (window, window)).unflatten(0, (-1, height // window, width // window))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def pick(x: Tensor, places: Tensor) -> Tensor:
    """The rows and columns of B x S x S x ... at those places, in their order: one Gather for each axis."""
    return x.index_select(1, places).index_select(2, places)


class WindowCrossAttention(nn.Module):
    """Multi-head cross-attention within co-located windows (eq. 3.5), with a relative position bias per head.

    `shift` moves the windows by that many pixels along both axes; pixels that only the wrap-around brings into one
    window do not see each other.
    """

    offsets: Tensor
    regions: Tensor
    shifted: Tensor
    back: Tensor

    def __init__(self, channels: int, side: int, window: int, heads: int, shift: int, *, out_projection: bool) -> None:
        """`side` is the feature's height and width, `window` a divisor of it, `shift` less than `window`."""
        super().__init__()
        self.side, self.window, self.heads, self.shift = side, window, heads, shift
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels) if out_projection else nn.Identity()
        zero_(self.out if out_projection else self.value)
        self.relative_position = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position, std=0.02)
        coordinate = torch.arange(window)
        relative = coordinate[:, None] - coordinate[None, :] + window - 1
        self.register_buffer("offsets", relative.flatten(), persistent=False)
        position = torch.arange(side)
        region = (position >= side - window).float() + (position >= side - shift).float()
        self.register_buffer("regions", region, persistent=False)
        self.register_buffer("shifted", position.roll(-shift), persistent=False)
        self.register_buffer("back", position.roll(shift), persistent=False)

    def position_bias(self) -> Tensor:
        """1 x heads x T x T, T = window^2: the entry of the offset between query and key pixel."""
        m, span = self.window, 2 * self.window - 1
        # One axis at a time: rows of the table by the vertical offset, then columns by the horizontal one.
        table = self.relative_position.unflatten(0, (span, span))
        table = table.index_select(0, self.offsets).index_select(1, self.offsets)
        table = table.unflatten(1, (m, m)).unflatten(0, (m, m))
        return table.permute(4, 0, 2, 1, 3).reshape(1, -1, m * m, m * m)

    def shift_mask(self) -> Tensor:
        """windows x 1 x T x T: 0 where query and key were neighbours before the shift, `MASKED` elsewhere."""
        count, m = self.side // self.window, self.window
        label = 3 * self.regions[:, None] + self.regions
        label = partition(label[None, :, :, None], m).reshape(count * count, 1, m * m)
        return (label[..., None] != label[:, :, None]).to(self.relative_position.dtype) * MASKED

    def forward(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Queries from x, keys and values from source, both B x H x W x C.

        Returns:
            The attended values B x H x W x C and the head-mean attention's maximum over the keys, B x H x W in (0, 1].
        """
        height = width = self.side
        tokens = self.window**2
        windows = (self.side // self.window) ** 2
        if self.shift:
            x, source = pick(x, self.shifted), pick(source, self.shifted)
        x, source = partition(x, self.window), partition(source, self.window)
        query = split_heads(self.query(x), self.heads)
        key = split_heads(self.key(source), self.heads)
        value = split_heads(self.value(source), self.heads)
        bias = self.position_bias()
        if self.shift:
            # The mask differs by window, so windows join the heads' axis and the batch alone is broadcast over.
            bias = (bias + self.shift_mask()).reshape(1, -1, tokens, tokens)
            query, key, value = (t.reshape(-1, windows * self.heads, tokens, t.shape[-1]) for t in (query, key, value))
        weights = attention_weights(query, key, bias)
        y = weights @ value
        if self.shift:
            y = y.reshape(-1, self.heads, tokens, y.shape[-1])
            weights = weights.reshape(-1, self.heads, tokens, tokens)
        y = merge(self.out(merge_heads(y)), self.window, height, width)
        peak = weights.mean(dim=1).amax(dim=-1)
        peak = merge(peak.unsqueeze(-1), self.window, height, width)
        if self.shift:
            y, peak = pick(y, self.back), pick(peak, self.back)
        return y, peak.squeeze(-1)


class CrossAttentionBlock(nn.Module):
    """Pre-LN window cross-attention and a GELU MLP, each with a residual path.

    The first norm is shared by queries and keys/values, which live in one feature space. Both branches end in a
    layer that starts at zero, so the block starts as the identity on x.
    """

    def __init__(self, channels: int, attention: WindowCrossAttention, mlp_ratio: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(channels)
        self.attention = attention
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, mlp_ratio * channels), nn.GELU(), nn.Linear(mlp_ratio * channels, channels)
        )
        zero_(self.mlp[2])

    def forward(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """x and source B x H x W x C to the new x and the attention peak B x H x W of `WindowCrossAttention`."""
        y, peak = self.attention(self.norm_attention(x), self.norm_attention(source))
        x = x + y
        return x + self.mlp(self.norm_mlp(x)), peak


class EditDiscrepancyExtraction(nn.Module):
    """f_delta = d * g_m (eq. 3.7) with d = E_cs(F, F~) - F (eq. 3.6).

    Each layer is a regular-window block and a block whose windows are shifted by half a window; a window as large as
    the feature leaves nothing to shift. The gate g_m is the sigmoid of the last block's head-mean attention, its
    maximum over the keys, so it lies in (0.5, 0.732). At initialisation f_delta = 0, with `linear_start` (F~ - F) g_m.

    With an inner width the blocks run between two 1x1 convolutions: `reduce`, shared by F and F~, and `back`, without
    bias, so that no change of the inner feature is no discrepancy.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        options, side = family.editor, family.feature_resolution
        channels = options.inner_width or family.feature_channels
        self.inner, self.linear_start = bool(options.inner_width), options.linear_start
        if self.inner:
            self.reduce = nn.Conv2d(family.feature_channels, channels, 1)
            self.back = nn.Conv2d(channels, family.feature_channels, 1, bias=False)
        shift = family.window // 2 if family.window < side else 0
        self.blocks = nn.ModuleList(
            CrossAttentionBlock(
                channels,
                WindowCrossAttention(
                    channels,
                    side,
                    family.window,
                    options.heads,
                    shift if half else 0,
                    out_projection=options.edem_out_projection,
                ),
                options.edem_mlp_ratio,
            )
            for _ in range(options.edem_layers)
            for half in range(2)
        )

    def residual_and_gate(self, feature: Tensor, edited: Tensor) -> tuple[Tensor, Tensor]:
        """d B x C x H x W and g_m B x 1 x H x W, whose product is the edit discrepancy."""
        query, source = (self.reduce(feature), self.reduce(edited)) if self.inner else (feature, edited)
        x = start = query.permute(0, 2, 3, 1)
        source = source.permute(0, 2, 3, 1)
        peak = None
        for block in self.blocks:
            x, peak = block(x, source)
        assert peak is not None, "edem_layers is at least 1"
        residual = (x - start).permute(0, 3, 1, 2)
        if self.inner:
            residual = self.back(residual)
        if self.linear_start:
            residual = residual + (edited - feature)
        return residual, peak.sigmoid().unsqueeze(1)

    def forward(self, feature: Tensor, edited: Tensor) -> Tensor:
        """F and F~, each B x C x H x W, to f_delta B x C x H x W."""
        residual, gate = self.residual_and_gate(feature, edited)
        return residual * gate
