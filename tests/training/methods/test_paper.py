from __future__ import annotations

import dataclasses

import pytest
import safetensors.torch
import torch

from training.methods.paper import EditingSystem


@pytest.fixture
def system(tiny, randomise):
    system = randomise(EditingSystem(tiny), 0.1)
    system.latent_avg.normal_()
    return system


def photo(family, batch=2):
    return torch.randn(batch, 3, *family.encoder_size).clamp(-1, 1)


@torch.no_grad()
def test_inversion_is_wired_as_in_the_paper(system, tiny):
    image = photo(tiny)
    inversion = system.invert(image)
    offsets, f = system.encoder(image)
    assert torch.equal(inversion.w, offsets + system.latent_avg)
    assert torch.equal(inversion.feature, system.ftem(f, inversion.w))
    assert torch.equal(inversion.w_e, system.e4e(image) + system.latent_avg)
    assert torch.equal(inversion.generator_feature, system.generator.lower(inversion.w_e)[0])


@torch.no_grad()
def test_edit_is_wired_as_in_the_paper(system, tiny):
    inversion = system.invert(photo(tiny))
    delta_w = torch.randn(2, tiny.w_rows, tiny.style_dim)
    delta_s = torch.randn(2, sum(tiny.style_channels))
    edited = system.generator.lower(inversion.w_e + delta_w, delta_s)[0]
    feature = system.editor(inversion.generator_feature, edited, inversion.feature)
    expected = system.generator.upper(feature, inversion.w + delta_w, None, delta_s)
    image = system.edit(inversion, delta_w, delta_s)
    assert image.shape == (2, 3, tiny.size, tiny.size)
    assert torch.equal(image, expected)
    assert not torch.allclose(image, system.edit(inversion, delta_w))


@torch.no_grad()
def test_untrained_editor_without_an_edit_reconstructs(tiny):
    system = EditingSystem(tiny).eval()
    inversion = system.invert(photo(tiny))
    nothing = torch.zeros(2, tiny.w_rows, tiny.style_dim)
    assert torch.equal(system.edit(inversion, nothing), system.reconstruct(inversion))


@torch.no_grad()
def test_reconstruction_depends_on_the_feature_and_the_later_rows_only(system, tiny):
    inversion = system.invert(photo(tiny))
    w = inversion.w.clone()
    w[:, : tiny.feature_conv] = 0
    image = system.reconstruct(inversion)
    assert torch.equal(system.reconstruct(inversion._replace(w=w)), image)
    assert not torch.allclose(system.reconstruct(inversion._replace(feature=inversion.feature * 0)), image)


@torch.no_grad()
def test_rgb_skip_keeps_the_lower_half_of_the_image(tiny, randomise):
    family = dataclasses.replace(tiny, rgb_skip=True)
    system = randomise(EditingSystem(family), 0.1)
    w = torch.randn(2, tiny.w_rows, tiny.style_dim)
    delta_s = torch.randn(2, sum(tiny.style_channels))
    # With the generator's own feature the split render is the plain generator, which it is not without the skip.
    feature = system.features(w, delta_s)
    assert torch.equal(system.render(feature, w, style_delta=delta_s), system.generator(w, delta_s))
    plain = EditingSystem(tiny).eval()
    plain.load_state_dict(system.state_dict())
    assert not torch.allclose(plain.render(feature, w, style_delta=delta_s), system.generator(w, delta_s))
    inversion = system.invert(photo(tiny))
    delta_w = torch.randn_like(w)
    rgb = system.generator.lower(inversion.w + delta_w, delta_s)[1]
    edited = system.features(inversion.w_e + delta_w, delta_s)
    feature = system.transform(inversion.generator_feature, edited, inversion.feature)
    expected = system.generator.upper(feature, inversion.w + delta_w, rgb, delta_s)
    assert torch.equal(system.edit(inversion, delta_w, delta_s), expected)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"ftem": False}, {"linear": True}, {"spade": False}], ids=str)
def test_weights_survive_safetensors(with_options, options):
    family = with_options(**options)
    system, other = EditingSystem(family).eval(), EditingSystem(family).eval()
    system.latent_avg.normal_()
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(system.state_dict())))
    image, delta = photo(family), torch.randn(2, family.w_rows, family.style_dim)
    assert torch.equal(system.edit(system.invert(image), delta), other.edit(other.invert(image), delta))


def test_gradients_of_an_edit_reach_every_network(system, tiny):
    inversion = system.train().invert(photo(tiny))
    image = system.edit(inversion, torch.randn(2, tiny.w_rows, tiny.style_dim))
    image.square().mean().backward()
    for name in ("generator.convs", "e4e", "encoder", "ftem", "editor"):
        gradients = [p.grad for n, p in system.get_submodule(name).named_parameters() if "key.bias" not in n]
        reached = sum(g is not None and bool(g.abs().max() > 0) for g in gradients)
        # e4e heads of rows above the feature and the mapping of those rows do not take part in an edit.
        assert reached > len(gradients) / 2, name


@torch.no_grad()
def test_runs_under_bfloat16_autocast_and_channels_last(system, tiny):
    image = photo(tiny)
    delta = torch.randn(2, tiny.w_rows, tiny.style_dim)
    expected = system.edit(system.invert(image), delta)
    # Not the generator: its public 5-D convolution weights have no channels-last form.
    for part in (system.e4e, system.encoder, system.ftem, system.editor):
        part.to(memory_format=torch.channels_last)
    result = system.edit(system.invert(image.contiguous(memory_format=torch.channels_last)), delta)
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    with torch.autocast("cpu", torch.bfloat16):
        half = system.edit(system.invert(image), delta).float()
    assert half.isfinite().all()
    assert (half - expected).norm() < 0.1 * expected.norm()


@torch.no_grad()
def test_exports_with_a_dynamic_batch(system, tiny):
    class Transform(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.system = system

        def forward(self, feature, edited, enhanced, w_plus):
            return self.system.render(self.system.transform(feature, edited, enhanced), w_plus)

    def arguments(batch):
        features = (torch.randn(batch, *tiny.feature_shape) for _ in range(3))
        return *features, torch.randn(batch, tiny.w_rows, tiny.style_dim)

    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        Transform(), arguments(2), dynamic_shapes=tuple({0: batch} for _ in range(4))
    ).module()
    for size in (1, 5):
        values = arguments(size)
        torch.testing.assert_close(program(*values), Transform()(*values), rtol=1e-4, atol=1e-4)
