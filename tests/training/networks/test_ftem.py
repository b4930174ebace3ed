from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.networks.ftem import FeatureTensorEnhancement


def inputs(family, batch=2):
    return torch.randn(batch, *family.feature_shape), torch.randn(batch, family.w_rows, family.style_dim)


@torch.no_grad()
@pytest.mark.parametrize("out_projection", [True, False])
def test_starts_as_the_identity(with_options, out_projection):
    family = with_options(ftem_out_projection=out_projection)
    feature, w = inputs(family)
    assert torch.equal(FeatureTensorEnhancement(family)(feature, w), feature)


@torch.no_grad()
@pytest.mark.parametrize("out_projection", [True, False])
def test_equation_3_2(with_options, randomise, out_projection):
    family = with_options(ftem_out_projection=out_projection)
    ftem = randomise(FeatureTensorEnhancement(family))
    feature, w = inputs(family)
    s, heads, rows = ftem.state_dict(), family.editor.heads, w[:, : family.feature_rows]

    def project(name, x):
        y = F.linear(x, s[f"attention.{name}.weight"], s[f"attention.{name}.bias"])
        return y.view(*y.shape[:2], heads, -1).transpose(1, 2)

    query = project("query", feature.flatten(2).transpose(1, 2))
    y = F.scaled_dot_product_attention(query, project("key", rows), project("value", rows))
    y = y.transpose(1, 2).reshape(2, -1, family.feature_channels)
    if out_projection:
        y = F.linear(y, s["attention.out.weight"], s["attention.out.bias"])
    x = feature + y.transpose(1, 2).reshape(feature.shape)
    for i in range(family.editor.ftem_blocks):
        hidden = F.conv2d(x, s[f"refine.{i}.conv1.weight"], s[f"refine.{i}.conv1.bias"], padding=1)
        hidden = F.prelu(hidden, s[f"refine.{i}.prelu.weight"])
        x = x + F.conv2d(hidden, s[f"refine.{i}.conv2.weight"], s[f"refine.{i}.conv2.bias"], padding=1)
    torch.testing.assert_close(ftem(feature, w), x, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_reads_only_the_leading_rows_and_not_their_order(tiny, randomise):
    ftem = randomise(FeatureTensorEnhancement(tiny))
    feature, w = inputs(tiny)
    before = ftem(feature, w)
    later = w.clone()
    later[:, tiny.feature_rows :] += 1.0
    assert torch.equal(ftem(feature, later), before)
    last = w.clone()
    last[:, tiny.feature_rows - 1] += 1.0
    assert not torch.allclose(ftem(feature, last), before)
    swapped = w.clone()
    swapped[:, [0, 1]] = w[:, [1, 0]]
    torch.testing.assert_close(ftem(feature, swapped), before, rtol=1e-4, atol=1e-4)


def test_without_ftem_there_are_no_tensors_and_nothing_changes(with_options):
    family = with_options(ftem=False)
    ftem = FeatureTensorEnhancement(family)
    feature, w = inputs(family)
    assert not ftem.state_dict()
    assert ftem(feature, w) is feature
