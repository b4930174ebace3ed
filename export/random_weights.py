"""Networks with random weights, for exports and measurements that need none in particular."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def random_weights(make: Callable[[], Network], seed: int = 0, inside: Sequence[str] = ("",)) -> Network:
    """A network that is random everywhere: zeros, which some layers start training from, cost a GPU less power.

    Args:
        make: gives it with the weights that its training starts from.
        seed: of all weights; the same seed gives the same ones on the same kind of device.
        inside: names of the modules whose zeros are filled; "" is the whole network.
    """
    torch.manual_seed(seed)
    network = make().eval().requires_grad_(False)
    for name in inside:
        for parameter in network.get_submodule(name).parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return network
