from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.export.helpers import TINY
from training.methods.generator import TappedGenerator, input_point
from training.methods.per_image import PerImageGenerator, per_image_conv, per_image_conv_transpose

SIZES = {
    "height": st.integers(1, 6),
    "width": st.integers(1, 6),
    "batch": st.integers(1, 3),
    "seed": st.integers(0, 99),
}


def _values(batch: int, height: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 4, height, width, generator=source), torch.randn(batch, 5, 4, 3, 3, generator=source)


@given(**SIZES)
def test_a_batch_at_once_is_image_by_image(batch, height, width, seed):
    x, weight = _values(batch, height, width, seed)
    wanted = torch.cat([F.conv2d(x[i : i + 1], weight[i], padding=1) for i in range(batch)])
    torch.testing.assert_close(per_image_conv(x, weight), wanted, rtol=1e-4, atol=1e-4)


@given(**SIZES)
def test_the_phases_make_up_the_transposed_convolution(batch, height, width, seed):
    x, weight = _values(batch, height, width, seed)
    wanted = torch.cat([F.conv_transpose2d(x[i : i + 1], weight[i].transpose(0, 1), stride=2) for i in range(batch)])
    torch.testing.assert_close(per_image_conv_transpose(x, weight), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 300.0])
@torch.no_grad()
def test_the_generator_renders_the_same(scale):
    torch.manual_seed(0)
    family = dataclasses.replace(TINY, size=32)
    generator = TappedGenerator(family).eval()
    # Large styles must not matter: the demodulation takes them back.
    for layer in (generator.conv1, *generator.convs):
        layer.conv.modulation.weight *= scale
    twin = PerImageGenerator(family).eval()
    twin.load_state_dict(generator.state_dict())
    code = torch.randn(2, family.w_rows, family.style_dim)
    widths = [layer.conv.weight.shape[1:3] for layer in (generator.conv1, *generator.convs)]
    # As in HyperStyle: some deltas for every tap of the kernel, some one for all.
    deltas = {i: 0.3 * torch.randn(2, *shape, *([3, 3] if i % 2 else [1, 1])) for i, shape in enumerate(widths)}
    wanted = generator.render(code, deltas=deltas)
    torch.testing.assert_close(
        twin.render(code, deltas=deltas), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item()
    )
    assert not torch.allclose(wanted, generator.render(code), atol=0.1)
    torch.testing.assert_close(twin.render(code), generator.render(code), rtol=0, atol=0)
    torch.testing.assert_close(
        twin.feature(code, input_point(16)), generator.feature(code, input_point(16)), rtol=0, atol=0
    )
