from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.networks.edem import (
    CrossAttentionBlock,
    EditDiscrepancyExtraction,
    WindowCrossAttention,
    merge,
    partition,
)

CHANNELS, SIDE, WINDOW, HEADS = 8, 12, 4, 2


def make(shift: int, randomise, *, side=SIDE, out_projection=True) -> WindowCrossAttention:
    torch.manual_seed(0)
    return randomise(WindowCrossAttention(CHANNELS, side, WINDOW, HEADS, shift, out_projection=out_projection), 0.5)


def pixel_by_pixel(layer: WindowCrossAttention, x: torch.Tensor, source: torch.Tensor):
    """Eq. 3.5 from coordinates alone: each query pixel attends to the pixels of its (shifted) window, no wrapping."""
    side, window, shift, heads = layer.side, layer.window, layer.shift, layer.heads
    width = x.shape[-1] // heads
    query, key, value = layer.query(x), layer.key(source), layer.value(source)
    out, peak = torch.zeros_like(x), torch.zeros(x.shape[:3])
    cell = [(p - shift) // window for p in range(side)]
    for y in range(side):
        for z in range(side):
            keys = [(i, j) for i in range(side) for j in range(side) if (cell[i], cell[j]) == (cell[y], cell[z])]
            rows, columns = (list(axis) for axis in zip(*keys, strict=True))
            index = [(y - i + window - 1) * (2 * window - 1) + (z - j + window - 1) for i, j in keys]
            mean = 0
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                scores = key[:, rows, columns, part] @ query[:, y, z, part, None] / math.sqrt(width)
                weights = (scores.squeeze(-1) + layer.relative_position[index, head]).softmax(-1)
                out[:, y, z, part] = (weights[:, None] @ value[:, rows, columns, part]).squeeze(1)
                mean = mean + weights / heads
            peak[:, y, z] = mean.amax(-1)
    return layer.out(out), peak


@torch.no_grad()
@pytest.mark.parametrize("out_projection", [True, False])
@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("side", [8, 12])
def test_equals_attention_by_coordinates(shift, side, out_projection, randomise):
    layer = make(shift, randomise, side=side, out_projection=out_projection)
    x, source = torch.randn(2, 2, side, side, CHANNELS)
    y, peak = layer(x, source)
    expected_y, expected_peak = pixel_by_pixel(layer, x, source)
    torch.testing.assert_close(y, expected_y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(peak, expected_peak, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_regular_windows_do_not_mix(randomise):
    layer = make(0, randomise)
    block = randomise(CrossAttentionBlock(CHANNELS, layer, 2))
    x, source = torch.randn(2, 1, SIDE, SIDE, CHANNELS)
    changed = source.clone()
    changed[:, 5, 6] += torch.randn(CHANNELS)
    difference = (block(x, changed)[0] - block(x, source)[0]).abs().amax(-1)[0]
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[4:8, 4:8] = True
    assert (difference[inside] > 0).all()
    assert (difference[~inside] == 0).all()


@torch.no_grad()
def test_shifted_windows_reach_across_borders_but_not_around_the_image(randomise):
    layer = make(2, randomise)
    x, source = torch.randn(2, 1, SIDE, SIDE, CHANNELS)

    def reached(row: int, column: int) -> set[tuple[int, int]]:
        changed = source.clone()
        changed[:, row, column] += 1.0
        difference = (layer(x, changed)[0] - layer(x, source)[0]).abs().amax(-1)[0]
        return {tuple(p) for p in (difference > 1e-6).nonzero().tolist()}

    # The shifted window of rows and columns 2..5 lies across four regular windows.
    assert reached(3, 3) == {(i, j) for i in range(2, 6) for j in range(2, 6)}
    # The corner shares its cyclic window with the three other corners and must see only itself.
    assert reached(0, 0) == {(i, j) for i in range(2) for j in range(2)}
    assert reached(11, 0) == {(i, j) for i in (10, 11) for j in range(2)}


@given(batch=st.integers(1, 3), window=st.integers(1, 5), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_merge_inverts_partition(batch, window, rows, columns):
    height, width = rows * window, columns * window
    x = torch.arange(batch * height * width * 2).view(batch, height, width, 2)
    windows = partition(x, window)
    assert windows.shape == (batch * rows * columns, window * window, 2)
    assert torch.equal(merge(windows, window, height, width), x)
    assert torch.equal(windows[0].view(window, window, 2), x[0, :window, :window])


def features(family, batch=2):
    return torch.randn(batch, *family.feature_shape), torch.randn(batch, *family.feature_shape)


@torch.no_grad()
@pytest.mark.parametrize("out_projection", [True, False])
def test_starts_without_a_discrepancy(with_options, out_projection):
    family = with_options(edem_out_projection=out_projection)
    edem = EditDiscrepancyExtraction(family)
    feature, edited = features(family)
    residual, gate = edem.residual_and_gate(feature, edited)
    assert torch.count_nonzero(residual) == 0
    assert gate.shape == (2, 1, 16, 16)
    assert torch.count_nonzero(edem(feature, edited)) == 0


@torch.no_grad()
@pytest.mark.parametrize("std", [0.05, 0.5, 3.0])
def test_gate_and_product(tiny, randomise, std):
    edem = randomise(EditDiscrepancyExtraction(tiny), std)
    feature, edited = features(tiny)
    residual, gate = edem.residual_and_gate(feature, edited)
    # A maximum of attention weights over S keys lies in [1/S, 1].
    assert (gate >= torch.tensor(1 / 64).sigmoid() - 1e-6).all()
    assert (gate <= torch.tensor(1.0).sigmoid() + 1e-6).all()
    assert torch.equal(edem(feature, edited), residual * gate)


@torch.no_grad()
def test_blocks_chain_the_query_stream_and_share_the_source(tiny, randomise):
    edem = randomise(EditDiscrepancyExtraction(tiny))
    assert [block.attention.shift for block in edem.blocks] == [0, 4, 0, 4]
    feature, edited = features(tiny)
    x = feature.permute(0, 2, 3, 1)
    for block in edem.blocks:
        normed, source = block.norm_attention(x), block.norm_attention(edited.permute(0, 2, 3, 1))
        y, peak = block.attention(normed, source)
        x = x + y
        x = x + block.mlp(block.norm_mlp(x))
    expected = (x.permute(0, 3, 1, 2) - feature) * peak.sigmoid()[:, None]
    torch.testing.assert_close(edem(feature, edited), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_window_as_large_as_the_feature_is_never_shifted(with_options, randomise):
    family = with_options(window=16)
    edem = randomise(EditDiscrepancyExtraction(family))
    assert [block.attention.shift for block in edem.blocks] == [0, 0, 0, 0]
    assert edem(*features(family)).shape == (2, *family.feature_shape)


def test_state_dict_holds_learned_tensors_only(tiny):
    edem = EditDiscrepancyExtraction(tiny)
    assert set(edem.state_dict()) == {name for name, _ in edem.named_parameters()}
