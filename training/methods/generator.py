"""StyleGAN2 as inversion methods use it: stopped early, with a feature changed on the way or with altered weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from engines.family import ModelFamily
from training.networks.stylegan2 import Generator, StyledConv

Change = Callable[[Tensor], Tensor]


class Point(NamedTuple):
    """A place between two convolutions. Convolutions are counted from 0, the 4x4 one; i uses row i of the code."""

    conv: int
    """The convolution before or after which the place lies."""
    before: bool
    """The side of the convolution: a change before it leaves the ToRGB of the previous resolution alone, one after it
    reaches that too."""


def input_point(resolution: int) -> Point:
    """The point where FS, CLCAE and SFE insert: between the blocks of `resolution` and of twice that, ToRGB already
    taken.

    This is element 5 of their feature lists for 16 x 16 and element 9 for 64 x 64, element 0 being the constant.
    """
    return Point(2 * (resolution.bit_length() - 1) - 3, True)


def first_conv_point(resolution: int) -> Point:
    """The point where HFGI, StyleRes and SDIC change the feature: after the first convolution at `resolution`."""
    return Point(2 * (resolution.bit_length() - 1) - 5, False)


class Pass(NamedTuple):
    """The results of a pass through the generator."""

    image: Tensor | None
    """B x 3 x S x S; None if the pass was stopped."""
    feature: Tensor | None
    """The feature at the asked point before any change, B x C x H x W; None if no point was given."""


class TappedGenerator(Generator):
    """A generator whose features can be read and changed. Stored noise throughout."""

    def __init__(self, family: ModelFamily, *, clamp: float | None = None) -> None:
        """`clamp` bounds the output of every convolution and ToRGB to +-clamp (StyleRes: 256)."""
        super().__init__(family)
        self.clamp = clamp

    def forward(  # type: ignore[override]
        self,
        w_plus: Tensor,
        point: Point | None = None,
        change: Change | None = None,
        *,
        stop: bool = False,
        deltas: Mapping[int, Tensor] | None = None,
    ) -> Pass:
        """One pass.

        Args:
            w_plus: B x N x D.
            point: where the feature is read, and changed by `change` if that is given.
            change: B x C x H x W to the same shape.
            stop: end at `point`; no ToRGB is run.
            deltas: B x O x I x k x k by convolution; its weight is multiplied by 1 + delta, per image (k may be 1).
        """
        x, image, feature = self.input(w_plus), None, None
        for index, layer in enumerate((self.conv1, *self.convs)):
            for before in (True, False):
                if not before:
                    x = self._styled(index, layer, x, w_plus, None if deltas is None else deltas.get(index))
                if point == (index, before):
                    feature = x
                    if stop:
                        return Pass(None, feature)
                    x = x if change is None else change(x)
            if index % 2 == 0 and not stop:
                image = self._rgb(index, x, w_plus, image)
        return Pass(image, feature)

    def render(
        self,
        w_plus: Tensor,
        point: Point | None = None,
        change: Change | None = None,
        *,
        deltas: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """The image B x 3 x S x S."""
        image = self(w_plus, point, change, deltas=deltas).image
        assert image is not None, "the pass was not stopped"
        return image

    def feature(self, w_plus: Tensor, point: Point) -> Tensor:
        """The feature at a point, B x C x H x W; nothing above it is run."""
        feature = self(w_plus, point, stop=True).feature
        assert feature is not None, "the point lies inside the generator"
        return feature

    def _bounded(self, x: Tensor) -> Tensor:
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)

    def _styled(self, index: int, layer: StyledConv, x: Tensor, w_plus: Tensor, delta: Tensor | None) -> Tensor:
        style = layer.conv.modulation(w_plus[:, index])
        noise = self.noises.get_buffer(f"noise_{index}")
        if delta is None:
            return self._bounded(layer(x, style, noise))
        weight = layer.conv.weight[0]
        # Weights differ by image, so images go one by one: no grouped convolution, and the layer's own code.
        parts = [
            layer.conv(x_i[None], s_i[None], weight * (1 + d_i))
            for x_i, s_i, d_i in zip(x.expand(len(style), -1, -1, -1), style, delta, strict=True)
        ]
        return self._bounded(layer.activate(layer.noise(torch.cat(parts), noise)))

    def _rgb(self, index: int, x: Tensor, w_plus: Tensor, image: Tensor | None) -> Tensor:
        layer = self.to_rgb1 if index == 0 else self.to_rgbs[index // 2 - 1]
        rgb = self._bounded(layer(x, layer.conv.modulation(w_plus[:, index + 1])))
        return rgb if image is None else rgb + layer.upsample(image)
