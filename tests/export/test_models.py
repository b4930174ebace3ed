from __future__ import annotations

import torch

from export.models import random_method, spread
from tests.export.helpers import MOBILE


@torch.no_grad()
def test_light_encoders_are_spread_as_their_generator_is() -> None:
    system = random_method("ours", MOBILE)
    generator = system.generator
    codes = generator.mapping(torch.randn(500, MOBILE.style_dim))
    system.latent_avg.copy_(codes.mean(dim=0))
    spread(system)
    inversion = system.invert(torch.rand(2, 3, *MOBILE.encoder_size) * 2 - 1)
    for w in (inversion.w, inversion.w_e):
        assert (w[0] - w[1]).norm() > 0 and ((w[:, 0] - system.latent_avg).abs() < 6 * codes.std(dim=0)).all()
    assert 0.1 < inversion.feature.std() / generator.lower(generator.broadcast(codes[:8]))[0].std() < 10
