"""Attention products, written out so that the weights can be read and the graph keeps the pattern engines fuse."""

from __future__ import annotations

import math

from torch import Tensor, nn


def split_heads(x: Tensor, heads: int) -> Tensor:
    """B x T x C to B x heads x T x C/heads."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """B x heads x T x d to B x T x (heads d)."""
    return x.transpose(1, 2).flatten(2)


def attention_weights(query: Tensor, key: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias): B x h x T x d and B x h x S x d to B x h x T x S.

    The query is scaled before the product: the scores stay small in half precision.
    """
    scores = (query * (1.0 / math.sqrt(query.shape[-1]))) @ key.transpose(-2, -1)
    return (scores if bias is None else scores + bias).softmax(dim=-1)


def zero_(*layers: nn.Module) -> None:
    """Zeroes the weight and bias of layers that end a residual branch, so that it starts as the identity."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
