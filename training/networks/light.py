"""Light encoders, for families whose `encoder` is "light": E0 and e4e at a fraction of the paper's cost.

A light E0 starts from what e4e found: w from w_e, and f from F = G(w_e^{1:k}), which an edit needs in any case. A
convolutional trunk at the feature's own resolution reads the photo and F and predicts what F lacks. Photos thus come as
features that the generator itself might have made, which is what makes them editable. The trunk has no norms and looks
at photos through a space-to-depth stem, so that it can be trained on windows of photos, whose borders alone then differ
from the whole. Codes come from small trunks over the whole photo. A generator that was distilled on codes of W wants
codes near W: e4e gives one code for all rows, E offsets from it for each row above the feature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.family import ModelFamily
from training.networks.attention import zero_
from training.networks.ftem import RefinementBlock
from training.networks.ir import conv3x3
from training.networks.mobilefacenet import MobileFaceNet

CODE_WIDTH = 192
"""Width of the vector from which a light E0 predicts its code."""
E4E_REDUCED = 64
"""Channels to which a light e4e's last map is reduced."""


def cell(family: ModelFamily) -> int:
    """Side of the square of encoder input pixels under one cell of the feature."""
    return max(family.encoder_size) // family.feature_resolution


class CodeTrunk(nn.Module):
    """Strided 3x3 convolutions with PReLUs from a photo, averaged down four times, to a vector B x `width`."""

    def __init__(self, family: ModelFamily, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels in (width // 8, width // 4, width // 2, width):
            layers += [conv3x3(before, channels, 2, bias=True), nn.PReLU(channels)]
            before = channels
        self.convs = nn.Sequential(*layers)
        height, breadth = (-(-side // 64) for side in family.encoder_size)
        self.linear = nn.Linear(width * height * breadth, width)
        self.prelu = nn.PReLU(width)

    def forward(self, image: Tensor) -> Tensor:
        return self.prelu(self.linear(self.convs(F.avg_pool2d(image, 4)).flatten(1)))


class LightFeatureStyleEncoder(nn.Module):
    """Light E0 (eq. 3.1): an image and its e4e inversion to offsets from the mean code and the feature f.

    Features are read and written in deviations of the channels of the generator's own feature, codes in deviations of
    W: buffers, ones and zeros until `set_statistics`. At initialisation w = w_e and f = F.
    """

    deviation: Tensor
    mean: Tensor
    code_deviation: Tensor

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        width, channels, side = family.encoder_width, family.feature_channels, cell(family)
        self.stem = nn.Sequential(nn.PixelUnshuffle(side), nn.Conv2d(3 * side * side, width, 1))
        self.prior = nn.Conv2d(channels, width, 1)
        self.blocks = nn.Sequential(*(RefinementBlock(width) for _ in range(family.encoder_blocks)))
        self.content = nn.Conv2d(width, channels, 1)
        self.register_buffer("deviation", torch.ones(1, channels, 1, 1))
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("code_deviation", torch.ones(family.style_dim))
        self.code = CodeTrunk(family, CODE_WIDTH)
        self.shared_rows = family.feature_conv
        self.styles = nn.ModuleList(
            nn.Linear(CODE_WIDTH, family.style_dim) for _ in range(family.w_rows - family.feature_conv)
        )
        zero_(self.content, *self.styles)

    @torch.no_grad()
    def set_statistics(self, features: Tensor, codes: Tensor) -> None:
        """Takes them from features of the generator, M x C x H x W, and codes of W, M x D."""
        self.code_deviation.copy_(codes.std(dim=0))
        self.mean.copy_(features.mean(dim=(0, 2, 3), keepdim=True))
        self.deviation.copy_(features.std(dim=(0, 2, 3), keepdim=True))

    def offsets(self, image: Tensor, editable: Tensor) -> Tensor:
        """Whole images B x 3 x h x w in [-1, 1], h x w = `family.encoder_size`, and e4e's offsets to E's, B x N x D."""
        hidden = self.code(image)
        above = torch.cat([head(hidden) for head in self.styles], dim=1).unflatten(1, (len(self.styles), -1))
        below, start = editable.split((self.shared_rows, len(self.styles)), dim=1)
        return torch.cat([below, start + above * self.code_deviation], dim=1)

    def feature(self, image: Tensor, generator_feature: Tensor) -> Tensor:
        """Images in [-1, 1] and F, or windows of both with whole cells, to the feature B x C x H x W."""
        prior = self.prior((generator_feature - self.mean) / self.deviation)
        return generator_feature + self.content(self.blocks(self.stem(image) + prior)) * self.deviation

    def forward(self, image: Tensor, editable: Tensor, generator_feature: Tensor) -> tuple[Tensor, Tensor]:
        """Args: image B x 3 x h x w; e4e's offsets B x N x D; F = G(w_e^{1:k}) B x C x H x W. Returns offsets and f."""
        return self.offsets(image, editable), self.feature(image, generator_feature)


class LightE4EEncoder(nn.Module):
    """Light e4e: image B x 3 x h x w in [-1, 1] to offsets from the mean code, B x N x D, the same in every row.

    A linear map of a MobileFaceNet's features, at half the input's resolution, and of the photo's colours. Offsets are
    scaled by the deviations of W, a buffer of ones until `set_statistics`, and start at zero.
    """

    code_deviation: Tensor

    def __init__(self, family: ModelFamily) -> None:
        super().__init__()
        self.rows = family.w_rows
        self.trunk = MobileFaceNet()
        self.reduce = nn.Conv2d(128, E4E_REDUCED, 1)
        height, width = (side // 32 for side in family.encoder_size)
        # The finest map and the colours are averaged to twice and four times the sides of the last map's quarter.
        inputs = (128 // 4 + E4E_REDUCED + 3 * 4) * height * width
        self.linear = nn.Linear(inputs, family.style_dim)
        zero_(self.linear)
        self.register_buffer("code_deviation", torch.ones(family.style_dim))

    @torch.no_grad()
    def set_statistics(self, codes: Tensor) -> None:
        """Takes the deviations from codes of W, M x D."""
        self.code_deviation.copy_(codes.std(dim=0))

    def inputs(self, image: Tensor) -> Tensor:
        """The inputs of the linear map, B x I."""
        small = F.avg_pool2d(image, 2)
        middle, last = self.trunk(small)
        parts = (F.avg_pool2d(middle, 4), self.reduce(last), F.avg_pool2d(small, 8))
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        code = self.linear(self.inputs(image)) * self.code_deviation
        return code[:, None, :].expand(-1, self.rows, -1)

    @torch.no_grad()
    def fit(self, inputs: Tensor, codes: Tensor, mean: Tensor, penalty: float = 1e4) -> None:
        """Sets the linear map by ridge regression.

        Args:
            inputs: M x I, of `inputs`.
            codes: M x D, codes of W that the images were rendered from.
            mean: D, the mean code.
            penalty: of the squared coefficients, for inputs and offsets in their deviations.
        """
        centre, scale = inputs.mean(dim=0), inputs.std(dim=0) + 1e-3
        x, y = (inputs - centre) / scale, (codes - mean) / self.code_deviation
        start = y.mean(dim=0)
        kernel = x @ x.T + penalty * torch.eye(len(x), device=x.device)
        weight = (x.T @ torch.linalg.solve(kernel, y - start)).T / scale
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(start - weight @ centre)
