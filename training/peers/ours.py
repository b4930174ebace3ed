"""The paper's system as one of the methods of its Table 5."""

from __future__ import annotations

from torch import Tensor

from training.networks.system import EditingSystem, Inversion
from training.peers.protocol import CARS, FACES, Peer, PeerInfo, per_row


class Ours(EditingSystem, Peer):
    """`EditingSystem`; its `latent_avg` is a single row (D)."""

    info = PeerInfo(
        key="ours",
        title="Ours",
        paper="the paper that this project implements",
        families=(FACES, CARS),
        licence="no official weights",
        convention="thop: called modules only, generator counted as nothing",
    )

    # As it is trained, see `training.data.encoder_input`.
    resize = "area"

    # The methods' common name for it is `delta`, and it may be B x D.
    def edit(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, inversion: Inversion, delta: Tensor, style_delta: Tensor | None = None
    ) -> Tensor:
        return super().edit(inversion, per_row(delta), style_delta)
