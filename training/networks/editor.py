"""The adaptive feature editor T (eq. 3.10) and its ablations."""

from __future__ import annotations

from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.edem import EditDiscrepancyExtraction
from training.networks.edfm import ConcatenationFusion, EditDiscrepancyFusion
from training.networks.surroundings import EditReach
from training.networks.transport import FeatureTransport


class FeatureEditor(nn.Module):
    """f'' = T(F, F~, f').

    Options of `family.editor` (section 4.4): without `edem` the discrepancy is the raw difference F~ - F; without
    `spade` the fusion is concatenation and a residual network; with `linear` there are no networks at all and
    f'' = f' + F~ - F. A part that an option removes is None. With `transport`, `FeatureTransport` moves f' before the
    fusion; with `surroundings`, f'' keeps f' where `EditReach` says so; with both, an edit that turns the head is
    linear editing of what was moved.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        options = family.editor
        self.edem: EditDiscrepancyExtraction | None = None
        self.edfm: EditDiscrepancyFusion | ConcatenationFusion | None = None
        self.transport = FeatureTransport(family) if options.transport else None
        self.reach = EditReach(family) if options.surroundings else None
        if options.linear:
            return
        if options.edem:
            self.edem = EditDiscrepancyExtraction(family)
        self.edfm = EditDiscrepancyFusion(family) if options.spade else ConcatenationFusion(family)

    def discrepancy(self, feature: Tensor, edited: Tensor) -> Tensor:
        """F and F~ to f_delta (eq. 3.7), all B x C x H x W."""
        return edited - feature if self.edem is None else self.edem(feature, edited)

    def carry(self, feature: Tensor, edited: Tensor, enhanced: Tensor) -> Tensor:
        """F, F~ and f' to the f' that is fused, all B x C x H x W."""
        return enhanced if self.transport is None else self.transport(feature, edited, enhanced)

    def fuse(self, enhanced: Tensor, discrepancy: Tensor) -> Tensor:
        """f' and f_delta to f'', all B x C x H x W."""
        return enhanced + discrepancy if self.edfm is None else self.edfm(enhanced, discrepancy)

    def settle(self, difference: Tensor, enhanced: Tensor, carried: Tensor, fused: Tensor) -> Tensor:
        """F~ - F, f', the f' that was fused and what came of it to f'', all B x C x H x W.

        What a turned head uncovers is a matter of places far apart, which the transport sees and the fusion's
        convolutions do not: these would leave traces of its old outline.
        """
        if self.reach is None:
            return fused
        turned = fused if self.transport is None else carried + difference
        return self.reach(difference, enhanced, fused, turned)

    def forward(self, feature: Tensor, edited: Tensor, enhanced: Tensor) -> Tensor:
        """F = G(w_e^{1:k}), F~ = G(w~_e^{1:k}) and f' to f'', all B x C x H x W."""
        carried = self.carry(feature, edited, enhanced)
        fused = self.fuse(carried, self.discrepancy(feature, edited))
        return self.settle(edited - feature, enhanced, carried, fused)
