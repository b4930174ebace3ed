"""The paper's own method: generator, both encoders, FTEM and feature editor, wired as in its figure 1.

Beside it stands the same system with the light networks of a family, which Table 5 has no row for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engines.contracts import DEFAULT_METHOD, PARTS
from engines.family import FACES_1024_MOBILE, ModelFamily
from training.methods.protocol import CARS, FACES, Method, MethodInfo, per_row
from training.networks.build import base_encoder, e4e_encoder, generator
from training.networks.editor import FeatureEditor
from training.networks.ftem import FeatureTensorEnhancement


class Inversion(NamedTuple):
    """The inversion of photos: all that depends on them alone, where edits start."""

    w: Tensor
    """W+ code of the high-fidelity encoder, B x N x D."""
    feature: Tensor
    """Enhanced feature f', B x C x H x W."""
    w_e: Tensor
    """Editing-friendly W+ code of the e4e encoder, B x N x D."""
    generator_feature: Tensor
    """F = G(w_e^{1:k}), B x C x H x W."""


class EditingSystem(Method):
    """Inversion and editing of images B x 3 x h x w in [-1, 1], h x w = `family.encoder_size`.

    `latent_avg` (D), the mean of W, is zero until it is set from a generator; both encoders predict offsets from it.
    Rendered images are B x 3 x S x S, nominally in [-1, 1], neither clamped nor cut to `family.visible_rows`.
    """

    info = MethodInfo(
        key=DEFAULT_METHOD,
        title="Ours",
        paper="the paper that this project implements",
        families=(FACES, CARS),
        licence="no official weights",
        convention="thop: called modules only, generator counted as nothing",
    )
    # As it is trained, see `training.data.encoder_input`.
    resize = "area"
    reconstruct_reads = ("w", "feature")
    edits_styles = True
    separate_graphs = PARTS
    identity_modules = ("ftem", "editor")

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.family = family
        self.generator = generator(family)
        self.e4e = e4e_encoder(family)
        self.encoder = base_encoder(family)
        self.ftem = FeatureTensorEnhancement(family)
        self.editor = FeatureEditor(family)
        self.register_buffer("latent_avg", torch.zeros(family.style_dim))

    def encode(self, image: Tensor, editable: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(w, f') = E(X), eq. 3.3: B x N x D and B x C x H x W.

        Args:
            image: B x 3 x h x w in [-1, 1].
            editable: w_e and F = G(w_e^{1:k}) where they are known already. A light E0 starts from them, the paper's
                has no use for them.
        """
        if self.family.encoder == "light":
            w_e, generator_feature = editable or self._editable(image)
            offsets, feature = self.encoder(image, w_e - self.latent_avg, generator_feature)
        else:
            offsets, feature = self.encoder(image)
        w = offsets + self.latent_avg
        return w, self.ftem(feature, w)

    def encode_e4e(self, image: Tensor) -> Tensor:
        """The editing-friendly code w_e, B x N x D."""
        return self.e4e(image) + self.latent_avg

    def _editable(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """w_e and F = G(w_e^{1:k})."""
        w_e = self.encode_e4e(image)
        return w_e, self.features(w_e)

    def features(self, w_plus: Tensor, style_delta: Tensor | None = None) -> Tensor:
        """G(w^{1:k}): B x N x D, and optional style offsets B x sum(style_channels), to B x C x H x W."""
        return self.generator.lower(w_plus, style_delta, with_rgb=False)[0]

    def transform(self, feature: Tensor, edited: Tensor, enhanced: Tensor) -> Tensor:
        """f'' = T(F, F~, f'), eq. 3.10; all B x C x H x W."""
        return self.editor(feature, edited, enhanced)

    def render(
        self, feature: Tensor, w_plus: Tensor, rgb: Tensor | None = None, style_delta: Tensor | None = None
    ) -> Tensor:
        """G(f, w_r), eq. 3.4 and 3.11, to B x 3 x S x S.

        Args:
            feature: B x C x H x W.
            w_plus: B x N x D.
            rgb: the lower half's RGB skip B x 3 x H x W. If it is None and the family keeps that skip (`rgb_skip`),
                it is computed from `w_plus`; a family without it starts the image at the feature's own ToRGB.
            style_delta: B x sum(style_channels), or None.
        """
        if rgb is None and self.family.rgb_skip:
            rgb = self.generator.lower(w_plus, style_delta)[1]
        return self.generator.upper(feature, w_plus, rgb, style_delta)

    def invert(self, image: Tensor) -> Inversion:
        """The inversion of images B x 3 x h x w in [-1, 1]: all of an edit that depends on the photo alone."""
        editable = self._editable(image)
        return Inversion(*self.encode(image, editable), *editable)

    def edit(self, inversion: Inversion, delta: Tensor, style_delta: Tensor | None = None) -> Tensor:
        """The edited image B x 3 x S x S.

        Args:
            inversion: from `invert`.
            delta: alpha * direction, B x D in W or B x N x D in W+, added to both codes.
            style_delta: offsets in StyleSpace, B x sum(style_channels), or None.
        """
        step = per_row(delta)
        edited = self.features(inversion.w_e + step, style_delta)
        feature = self.transform(inversion.generator_feature, edited, inversion.feature)
        return self.render(feature, inversion.w + step, style_delta=style_delta)

    def reconstruct(self, inversion: Inversion) -> Tensor:
        """The photo's reconstruction G(f', w_r), eq. 3.4: B x 3 x S x S."""
        return self.render(inversion.feature, inversion.w)


class LightEditingSystem(EditingSystem):
    """The system of a family with light networks and MobileStyleGAN, as it is counted and timed beside Table 5."""

    info = MethodInfo(
        key="ours-light",
        title="Ours, light",
        paper="the same equations, with the light networks that its limitations ask for",
        families=(FACES_1024_MOBILE.name,),
        licence="no official weights",
        convention="not in the paper: all tensors; everything that runs for one edit",
    )
