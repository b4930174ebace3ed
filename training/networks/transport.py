"""Transport: what f' adds to the generator's own feature moves along with what an edit moves.

f' = F + r, and r holds all that e4e's code cannot say: the person's own features, glasses, the background. Linear
editing leaves r in its place, where a head that has turned no longer is: ghosts. F and F~ say what moved where, because
the generator writes the same things with the same channels. So r is attended to: queries come from F~, keys from F.

Where F and F~ both show background but the photo shows hair, they say nothing of it, and its outline would stay. There
r moves as what is around it does: motion is measured by the attention, spread from places that are found again for
sure, and the attention looks a second time, around where the motion leads.
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
"""Standard deviation of the prior of distances by which motion is measured, as a fraction of the feature's side."""
REACH = 0.08
"""Standard deviation of the Gaussian that spreads motion, as a fraction of the feature's side."""
STRAY = 0.03
"""Standard deviation of the prior of distances from where the motion leads, as a fraction of the feature's side."""
UNKNOWN = 5e-4
"""Weight of the assumption that nothing moves; a place that is found again for sure has 1."""
NUDGE = 0.5
"""Motion, in the feature's pixels, at which r begins to move."""
STILL = 0.11
"""Change of F, in its channels' deviations, at which r begins to move, where training starts."""


class FeatureTransport(nn.Module):
    """f' + c (A r - r) with r = f' - F: A is attention from F~ to F, c in [0, 1) says where F~ differs from F or moves.

    A window of a quarter of the feature's side sees itself and half its side around. A Gaussian prior decides where
    many places look alike: first, for the motion, of the distance alone, then of the distance from where the motion
    leads. Where nothing is edited, c is zero and f' stays as it is, to the bit.
    """

    places: Tensor
    far: Tensor
    near: Tensor
    around: Tensor
    blur: Tensor

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.side, self.channels = family.feature_resolution, family.feature_channels
        self.window, self.halo = self.side // 4, self.side // 8
        self.key = nn.Conv2d(self.channels, KEY_WIDTH, 1)
        self.log_temperature = nn.Parameter(torch.tensor(TEMPERATURE).log())
        self.log_still = nn.Parameter(torch.tensor(STILL).log())
        places = torch.arange(2 * self.window)
        # Every window's places in a padded feature, which is one Gather for each axis.
        starts = self.window * torch.arange(self.side // self.window)
        self.register_buffer("places", (starts[:, None] + places).flatten(), persistent=False)
        apart = -0.5 * (places[: self.window, None] + self.halo - places).float().square()
        self.register_buffer("far", apart / (SPREAD * self.side) ** 2, persistent=False)
        self.register_buffer("near", apart / (STRAY * self.side) ** 2, persistent=False)
        # Pixels 4 T x 2, row and column, from the window's centre.
        axes = torch.meshgrid(*[places - (self.window - 0.5)] * 2, indexing="ij")
        self.register_buffer("around", torch.stack(axes, dim=-1).flatten(0, 1), persistent=False)
        rows = torch.arange(self.side)
        blur = ((rows[:, None] - rows).float() / (REACH * self.side)).square().mul(-0.5).exp()
        self.register_buffer("blur", blur / blur.sum(dim=1).max(), persistent=False)

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

    @staticmethod
    def prior(apart: Tensor) -> Tensor:
        """`far` or `near` to the logarithm of the prior of a window's pixels T and the places around them, T x 4 T."""
        return (apart[:, None, :, None] + apart[None, :, None, :]).flatten(2).flatten(0, 1)

    def _around(self, x: Tensor) -> Tensor:
        """B x C x H x W to (B windows) x 4 T x C: every window and half its side around, which may be empty."""
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, *[self.halo] * 4))
        return partition(pick(padded, self.places), 2 * self.window)

    def motion(self, logits: Tensor, changed: Tensor) -> Tensor:
        """Logits (B windows) x T x 4 T and how much of every place changed, B x 1 x H x W in [0, 1), to where places
        come from, B x 2 x H x W, in rows and columns of pixels.

        A place counts by how surely it is found again, squared, so that flat background says nothing. One that did not
        change did not move.
        """
        weights = (logits + self.prior(self.far)).softmax(dim=-1)
        inner = slice(self.halo, self.halo + self.window)
        here = self.around.unflatten(0, (2 * self.window, -1))[inner, inner].flatten(0, 1)
        sure = weights.square().sum(dim=-1, keepdim=True).square()
        parts = torch.cat([sure * (weights @ self.around - here), sure], dim=-1)
        moved, sure = merge(parts, self.window, self.side, self.side).permute(0, 3, 1, 2).split([2, 1], dim=1)
        moved, sure = (self.blur @ x @ self.blur.T for x in (changed * moved, sure))
        return moved / (sure + UNKNOWN)

    def forward(self, feature: Tensor, edited: Tensor, enhanced: Tensor) -> Tensor:
        """F, F~ and f' to the f' that is transported, all B x C x H x W."""
        key, query = self.key(feature), self.key(edited)
        change = (query - key).square().mean(dim=1, keepdim=True) * (KEY_WIDTH / self.channels)
        change = F.avg_pool2d(change, 5, 1, 2, count_include_pad=False)
        still = (-change * (-2 * self.log_still).exp()).exp()
        query, key = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-3) for x in (query, key))
        query = partition(query.permute(0, 2, 3, 1), self.window) * (-self.log_temperature).exp()
        logits = query @ self._around(key).transpose(1, 2)
        motion = self.motion(logits, 1.0 - still)
        moves = 1.0 - still * (-motion.square().sum(dim=1, keepdim=True) / NUDGE**2).exp()
        # The prior around where the motion leads, but for what is the same for all places.
        pull = partition(motion.permute(0, 2, 3, 1), self.window) / (STRAY * self.side) ** 2
        weights = (logits + self.prior(self.near) + pull @ self.around.T).softmax(dim=-1)
        rest = enhanced - feature
        moved = merge(weights @ self._around(rest), self.window, self.side, self.side)
        return enhanced + moves * (moved.permute(0, 3, 1, 2) - rest)
