"""HyperStyle (Alaluf et al. 2022): a hypernetwork refines the generator's weights for one photo."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.data import visible
from training.methods.generator import TappedGenerator
from training.methods.per_image import PerImageGenerator
from training.methods.protocol import CARS, FACES, Method, MethodInfo, per_row
from training.networks.ir import IRSE50, conv3x3
from training.networks.stylegan2 import EqualLinear

REFINEMENTS = 5
"""The default number of refinements."""
STAGES = ((3, 1), (4, 2), (6, 2), (3, 2))
"""Units and stride of the first, for the four stages of a ResNet-34."""


class WEncoder(IRSE50):
    """Image to one offset from the mean of W: B x 3 x h x w to B x D."""

    def __init__(self, family: ModelFamily) -> None:
        super().__init__(family.encoder_width)
        self.linear = EqualLinear(8 * family.encoder_width, family.style_dim)

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(self.body(self.input_layer(image)).mean(dim=(2, 3)))


class BasicBlock(nn.Module):
    """ResNet's basic block: two convolutions, a shortcut, ReLU after the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class SharedHypernet(nn.Module):
    """A vector B x C to the delta B x C x C x 3 x 3 of one of the widest convolutions, by two matrices."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.w1 = nn.Parameter(torch.randn(channels, 9 * channels) / 40)
        self.b1 = nn.Parameter(torch.randn(9 * channels) / 40)
        self.w2 = nn.Parameter(torch.randn(channels, channels**2) / 40)
        self.b2 = nn.Parameter(torch.randn(channels**2) / 40)

    def forward(self, z: Tensor) -> Tensor:
        rows = (z @ self.w2 + self.b2).unflatten(1, (self.channels, self.channels))
        return (rows @ self.w1 + self.b1).unflatten(2, (self.channels, 3, 3))


def _halvings(widths: tuple[int, ...], strides: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, stride in zip(widths[:-1], widths[1:], strides, strict=True):
        layers += [conv3x3(before, after, stride, bias=True), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers)


class SharedRefinement(nn.Module):
    """The map B x I x h x w to the vector that `SharedHypernet` takes."""

    def __init__(self, in_channels: int, channels: int, side: int) -> None:
        """`side` is the longer side of the map."""
        super().__init__()
        steps = math.ceil(math.log2(side))
        inner = in_channels // 4
        self.convs = _halvings((in_channels, *[inner] * steps, channels), (1, *[2] * steps))
        self.linear = EqualLinear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1))


class Refinement(nn.Module):
    """The map B x I x h x w to the delta of one convolution, B x out x in x 1 x 1: the same for all its taps."""

    def __init__(self, in_channels: int, conv_in: int, conv_out: int) -> None:
        super().__init__()
        inner = in_channels // 2
        self.shape = (conv_out, conv_in, 1, 1)
        self.convs = _halvings((in_channels, inner, inner, in_channels), (2, 2, 2))
        self.output = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, conv_in * conv_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.convs(x)).flatten(1).unflatten(1, self.shape)


def delta_index(conv: int) -> int:
    """Place of a 3x3 convolution (0 the 4x4 one) in the published list, which counts the ToRGB layers too."""
    return 0 if conv == 0 else conv + (conv + 1) // 2


class Hypernetwork(nn.Module):
    """Photo and rendering, together B x 6 x h x w, to a delta for each 3x3 convolution, by `delta_index`.

    In the official files each block that uses the shared network lists its tensors again, under `hypernet.`.
    """

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        width = family.encoder_width
        self.conv1 = nn.Conv2d(6, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.PReLU(width)
        blocks: list[nn.Module] = []
        before = width
        for n, (count, stride) in enumerate(STAGES):
            for i in range(count):
                blocks.append(BasicBlock(before, width << n, stride if i == 0 else 1))
                before = width << n
        self.body = nn.Sequential(*blocks)
        widest = family.channel_max
        self.shared_weight_hypernet = SharedHypernet(widest)
        self.refinement_blocks = nn.ModuleDict()
        side = max(family.encoder_size) // 16
        for conv, (conv_in, conv_out) in enumerate(conv_widths(family)):
            shared = conv_in == conv_out == widest
            block = SharedRefinement(before, widest, side) if shared else Refinement(before, conv_in, conv_out)
            self.refinement_blocks[str(delta_index(conv))] = block

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One delta per convolution, B x O x I x 3 x 3 or, the same for all taps, B x O x I x 1 x 1."""
        x = self.body(self.relu(self.bn1(self.conv1(images))))
        deltas = [block(x) for block in self.refinement_blocks.values()]
        return tuple(self.shared_weight_hypernet(d) if d.dim() == 2 else d for d in deltas)


def conv_widths(family: ModelFamily) -> list[tuple[int, int]]:
    """Input and output channels of the generator's 3x3 convolutions."""
    widths = [(family.channels(4), family.channels(4))]
    for below, here in zip(family.resolutions[:-1], family.resolutions[1:], strict=True):
        widths += [(family.channels(below), family.channels(here)), (family.channels(here), family.channels(here))]
    return widths


class HyperStyleInversion(NamedTuple):
    """Code and weights."""

    w: Tensor
    """B x N x D."""
    deltas: tuple[Tensor, ...]
    """The deltas by convolution; a weight is multiplied by 1 + delta. See `Hypernetwork.forward` for the shapes."""


class HyperStyle(Method):
    """The edited code drives a generator whose convolutions were refined for the photo."""

    info = MethodInfo(
        key="hyperstyle",
        title="HyperStyle",
        paper="Alaluf et al. 2022, HyperStyle: StyleGAN inversion with hypernetworks for real image editing",
        families=(FACES, CARS),
        licence="MIT (2021, code); no separate statement for the weights",
        convention="none: not in Table 5; all tensors; all passes of one edit",
    )

    def __init__(self, family: ModelFamily, *, refinements: int = REFINEMENTS) -> None:
        """
        Raises:
            ValueError: if there is nothing to refine.
        """
        super().__init__()
        if refinements < 1:
            raise ValueError(f"HyperStyle needs at least 1 refinement, got {refinements}")
        self.set_family(family)
        self.refinements = refinements
        self.w_encoder = WEncoder(family)
        self.hypernet = Hypernetwork(family)
        self.decoder = TappedGenerator(family)

    def _render(self, w: Tensor, deltas: tuple[Tensor, ...]) -> Tensor:
        return self.decoder.render(w, deltas=dict(enumerate(deltas)))

    def invert(self, image: Tensor) -> HyperStyleInversion:
        w = self.w_encoder(image)[:, None] + self.latent_avg
        deltas: tuple[Tensor, ...] = ()
        assert self.refinements is not None, "set when it is made"
        for _ in range(self.refinements):
            rendered = visible(self._render(w, deltas), self.family)
            rendered = F.adaptive_avg_pool2d(rendered, self.family.encoder_size)
            steps = self.hypernet(torch.cat([image, rendered], dim=1))
            deltas = tuple(a + b for a, b in zip(deltas, steps, strict=True)) if deltas else steps
        return HyperStyleInversion(w, deltas)

    def edit(self, inversion: HyperStyleInversion, delta: Tensor) -> Tensor:
        return self._render(inversion.w + per_row(delta), inversion.deltas)

    def exportable(self) -> Self:
        """A frozen copy around a generator that takes a batch at once."""
        with torch.device("meta"):
            batched = type(self)(self.family, refinements=self.refinements)
            batched.decoder = PerImageGenerator(self.family)
        batched.load_state_dict(self.state_dict(), assign=True)
        return batched.eval().requires_grad_(False)
