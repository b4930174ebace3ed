"""Transport: what f' adds to the generator's own feature moves along with what an edit moves.

f' = F + r, and r holds all that e4e's code cannot say: the person's own features, glasses, the background. Linear
editing leaves r in its place, where a head that has turned no longer is: ghosts. F and F~ say what moved where, because
the generator writes the same things with the same channels. So r is attended to: queries come from F~, keys from F.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.edem import merge, partition, pick

KEY_WIDTH = 64
"""Channels in which F and F~ are compared."""
TEMPERATURE = 0.004
"""Of the cosines of keys, where training starts."""
SPREAD = 0.1
"""Standard deviation of the prior of distances, as a fraction of the feature's side."""
STILL = 0.11
"""Change of F, in its channels' deviations, at which r begins to move, where training starts."""


class FeatureTransport(nn.Module):
    """f' + c (A r - r) with r = f' - F: A is attention from F~ to F, c in [0, 1) says where F~ differs from F.

    A window of a quarter of the feature's side sees itself and half its side around. A Gaussian prior of the distance
    decides where many places look alike. Where nothing is edited, c is zero and f' stays as it is, to the bit.
    """

    places: Tensor
    apart: Tensor

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.side, self.channels = family.feature_resolution, family.feature_channels
        self.window, self.halo = self.side // 4, self.side // 8
        self.key = nn.Conv2d(self.channels, KEY_WIDTH, 1)
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())
        self.log_still = nn.Parameter(torch.tensor(STILL).log())
        around = torch.arange(2 * self.window)
        # Every window's places in a padded feature, which is one Gather for each axis.
        starts = self.window * torch.arange(self.side // self.window)
        self.register_buffer("places", (starts[:, None] + around).flatten(), persistent=False)
        apart = (around[: self.window, None] + self.halo - around).float() / (SPREAD * self.side)
        self.register_buffer("apart", -0.5 * apart.square(), persistent=False)

    @torch.no_grad()
    def set_statistics(self, features: Tensor) -> None:
        """Keys become the first principal components of features of the generator, M x C x H x W, each channel in its
        own deviations."""
        mean, deviation = features.mean(dim=(0, 2, 3)), features.std(dim=(0, 2, 3))
        points = ((features.movedim(1, -1).flatten(0, 2) - mean) / deviation).double()
        _, vectors = torch.linalg.eigh(points.T @ points)
        weight = vectors[:, -KEY_WIDTH:].T.float() / deviation
        weight = torch.cat([weight, weight.new_zeros(KEY_WIDTH - len(weight), weight.shape[1])])
        self.key.load_state_dict({"weight": weight[:, :, None, None], "bias": -weight @ mean})

    def prior(self) -> Tensor:
        """The logarithm of the prior of a window's pixels T and the places around them 4 T, T x 4 T."""
        return (self.apart[:, None, :, None] + self.apart[None, :, None, :]).flatten(2).flatten(0, 1)

    def _around(self, x: Tensor) -> Tensor:
        """B x C x H x W to (B windows) x 4 T x C: every window and half its side around, which may be empty."""
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, *[self.halo] * 4))
        return partition(pick(padded, self.places), 2 * self.window)

    def forward(self, feature: Tensor, edited: Tensor, enhanced: Tensor) -> Tensor:
        """F, F~ and f' to the f' that is transported, all B x C x H x W."""
        key, query = self.key(feature), self.key(edited)
        change = (query - key).square().mean(dim=1, keepdim=True) * (KEY_WIDTH / self.channels)
        change = F.avg_pool2d(change, 5, 1, 2, count_include_pad=False)
        moves = 1.0 - (-change * (-2 * self.log_still).exp()).exp()
        query, key = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-3) for x in (query, key))
        query = partition(query.permute(0, 2, 3, 1), self.window) * (-self.log_temperature).exp()
        weights = (query @ self._around(key).transpose(1, 2) + self.prior()).softmax(dim=-1)
        rest = enhanced - feature
        moved = merge(weights @ self._around(rest), self.window, self.side, self.side)
        return enhanced + moves * (moved.permute(0, 3, 1, 2) - rest)
