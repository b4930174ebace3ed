"""The surroundings of the face, which an edit is to leave alone unless it turns the head.

The generator's picture of an edited code has another background, too: its features differ there, and an editor that
writes the whole difference repaints hair, clothes and background for a smile. A mask on f'' - f' keeps them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.attention import zero_

FACE_ELLIPSE = (0.57, 0.5, 0.40, 0.31)
"""Centre row and column, half height and half width of the face in an FFHQ-aligned picture, as fractions."""
FADE = 0.2
"""The share of the ellipse's half axes over which `around_face` falls to zero beyond it."""
PENALTY = 1e-6
"""Weight of the classifier's squared weights when it is fitted, on standardised strengths."""
SURE = 1.5
"""Factor of the fitted logits, so that few edits are taken for both kinds at once."""


def ellipse_radius(height: int, width: int) -> Tensor:
    """Distance height x width of every pixel from the face's centre: 1 on the ellipse."""
    rows, columns = torch.meshgrid(*((torch.arange(n) + 0.5) / n for n in (height, width)), indexing="ij")
    row, column, half_height, half_width = FACE_ELLIPSE
    return (((rows - row) / half_height) ** 2 + ((columns - column) / half_width) ** 2).sqrt()


def around_face(side: int) -> Tensor:
    """Weights 1 x 1 x side x side: 1 within the face's ellipse, falling to 0 where it is enlarged by `FADE`."""
    return ((1 + FADE - ellipse_radius(side, side)) / FADE).clamp(0, 1)[None, None]


class EditReach(nn.Module):
    """The places where an edit may change the feature: around the face, or everywhere if it turns the head.

    A linear classifier sees how strong F~ - F is inside and outside the face, channel by channel and regardless of its
    scale, and so of the edit's strength. It is fitted to directions of which it is known whether they turn the head.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        inside = around_face(family.feature_resolution)
        self.register_buffer("inside", inside, persistent=False)
        self.register_buffer("share", torch.cat([inside / inside.mean(), (1 - inside) / (1 - inside).mean()]), False)
        self.turns = nn.Linear(2 * family.feature_channels, 1)
        zero_(self.turns)

    def strengths(self, difference: Tensor) -> Tensor:
        """F~ - F, B x C x H x W, to the strength of its channels inside and outside the face, B x 2 C, of length 1."""
        strength = difference.abs()
        pooled = torch.cat([(strength * share).mean(dim=(2, 3)) for share in self.share.split(1)], dim=1)
        return F.layer_norm(pooled, pooled.shape[1:], eps=1e-12) * pooled.shape[1] ** -0.5

    def logit(self, difference: Tensor) -> Tensor:
        """F~ - F, B x C x H x W, to the logit that the edit turns the head, B x 1."""
        return self.turns(self.strengths(difference))

    def fit(self, strengths: Tensor, turns: Tensor) -> None:
        """Fits the classifier by logistic regression in which both kinds weigh the same.

        Args:
            strengths: M x 2 C, of known edits.
            turns: M, 1 for those that turn the head, 0 for others. Where all are of one kind, every edit is of it.
        """
        share = turns.mean()
        if share in (0, 1):
            zero_(self.turns)
            nn.init.constant_(self.turns.bias, 20.0 * float(share) - 10.0)
            return
        mean, scale = strengths.mean(dim=0), strengths.std()
        known = (strengths - mean) / scale
        weigh = torch.where(turns > 0, 0.5 / share, 0.5 / (1 - share))
        weight = known.new_zeros(known.shape[1], requires_grad=True)
        bias = known.new_zeros(1, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = known @ weight + bias
            total = F.binary_cross_entropy_with_logits(logits, turns, weigh) + PENALTY * weight.square().sum()
            total.backward()
            return total

        with torch.enable_grad():
            optimizer.step(loss)
        weight = SURE * weight.detach() / scale
        self.turns.load_state_dict({"weight": weight[None], "bias": SURE * bias.detach() - mean @ weight})

    def forward(self, difference: Tensor, enhanced: Tensor, around: Tensor, turned: Tensor) -> Tensor:
        """F~ - F, f', and the f'' of edits that leave the head and of those that turn it, all B x C x H x W, to f''."""
        turns = self.logit(difference).sigmoid()[:, :, None, None]
        still = enhanced + self.inside * (around - enhanced)
        return still + turns * (turned - still)
