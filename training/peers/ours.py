"""The paper's system as one of the methods of its Table 5, and beside it the same system with light networks."""

from __future__ import annotations

from torch import Tensor

from engines.family import FACES_1024_MOBILE
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


class OursLight(Ours):
    """The system of a family with light networks and MobileStyleGAN; the table has no such row."""

    info = PeerInfo(
        key="ours-light",
        title="Ours, light",
        paper="the same equations, with the light networks that its limitations ask for",
        families=(FACES_1024_MOBILE.name,),
        licence="no official weights",
        convention="not in the paper: all tensors; everything that runs for one edit",
    )
