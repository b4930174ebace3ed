from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.networks.edfm import ConcatenationFusion, EditDiscrepancyFusion, ModulatedResidualBlock
from training.networks.editor import FeatureEditor


def triple(family, batch=2):
    return tuple(torch.randn(batch, *family.feature_shape) for _ in range(3))


@torch.no_grad()
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("norm", ["instance", "layer"])
def test_equations_3_8_and_3_9(shared, norm, randomise):
    torch.manual_seed(0)
    block = randomise(ModulatedResidualBlock(6, shared_first=shared, norm=norm))
    x, discrepancy = torch.randn(2, 2, 6, 8, 8)
    s = block.state_dict()

    def conv(name, value):
        return F.conv2d(value, s[f"{name}.weight"], s[f"{name}.bias"], padding=1)

    def head(index, name):
        return conv(f"modulation.{name}", F.gelu(conv(f"modulation.first.{0 if shared else index}", discrepancy)))

    gamma, beta, delta = head(0, "gamma"), head(1, "beta"), head(2, "delta")
    axes = (2, 3) if norm == "instance" else 1
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, unbiased=False, keepdim=True)
    hidden = (x - mean) / torch.sqrt(variance + 1e-5) * (1 + torch.tanh(gamma)) + beta
    residual = conv("branch.2", F.gelu(conv("branch.0", hidden)))
    torch.testing.assert_close(block(x, discrepancy), x + torch.sigmoid(delta) * residual, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("edem", [True, False])
@pytest.mark.parametrize("norm", ["instance", "layer"])
def test_starts_as_the_identity(with_options, edem, norm):
    family = with_options(edem=edem, edfm_norm=norm)
    feature, edited, enhanced = triple(family)
    assert torch.equal(FeatureEditor(family)(feature, edited, enhanced), enhanced)


@torch.no_grad()
def test_concatenation_starts_as_the_identity_without_a_discrepancy(with_options):
    family = with_options(spade=False)
    feature, edited, enhanced = triple(family)
    torch.testing.assert_close(FeatureEditor(family)(feature, edited, enhanced), enhanced)


@torch.no_grad()
def test_linear_editing(with_options):
    family = with_options(linear=True)
    editor = FeatureEditor(family)
    feature, edited, enhanced = triple(family)
    assert not editor.state_dict()
    torch.testing.assert_close(editor(feature, edited, enhanced), enhanced + edited - feature)


@pytest.mark.parametrize(
    "options",
    [{}, {"edem": False}, {"spade": False}, {"edem": False, "spade": False}, {"edfm_shared_first": False},
     {"edfm_norm": "layer"}, {"edem_layers": 1}, {"edem_out_projection": False}],
    ids=str,
)  # fmt: skip
def test_each_ablation_runs_and_composes(with_options, randomise, options):
    family = with_options(**options)
    editor = randomise(FeatureEditor(family))
    feature, edited, enhanced = triple(family)
    discrepancy = editor.discrepancy(feature, edited)
    if not family.editor.edem:
        assert torch.equal(discrepancy, edited - feature)
        assert editor.edem is None
    assert isinstance(editor.edfm, EditDiscrepancyFusion if family.editor.spade else ConcatenationFusion)
    result = editor(feature, edited, enhanced)
    assert result.shape == enhanced.shape
    assert torch.equal(result, editor.fuse(enhanced, discrepancy))
    assert not torch.allclose(result, enhanced, atol=1e-2)
    assert not torch.allclose(result, editor(feature, feature, enhanced), atol=1e-3)


@pytest.mark.parametrize("options", [{}, {"edem": False}, {"spade": False}], ids=str)
def test_gradients_reach_every_parameter_within_a_few_steps(with_options, options):
    # Zero-initialised branch ends hold gradients back at the first step; they must not do so for good.
    family = with_options(**options)
    editor = FeatureEditor(family)
    optimiser = torch.optim.Adam(editor.parameters(), lr=1e-3)
    feature, edited, enhanced = triple(family)
    losses = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = (editor(feature, edited, enhanced) - (enhanced + edited - feature)).square().mean()
        loss.backward()
        losses.append(loss.item())
        optimiser.step()
    assert losses[-1] < losses[0]
    # A key's bias shifts all scores of a query alike and softmax cancels it.
    idle = [n for n, p in editor.named_parameters() if "key.bias" not in n and not p.grad.abs().max() > 0]
    assert idle == []


def test_gradients_reach_the_inputs(tiny, randomise):
    editor = randomise(FeatureEditor(tiny))
    inputs = [t.requires_grad_() for t in triple(tiny)]
    editor(*inputs).square().mean().backward()
    assert all(t.grad.abs().max() > 0 for t in inputs)


@torch.no_grad()
def test_images_of_a_batch_are_independent(tiny, randomise):
    editor = randomise(FeatureEditor(tiny))
    batch = triple(tiny, 3)
    together = editor(*batch)
    for i in range(3):
        alone = editor(*(t[i : i + 1] for t in batch))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)
