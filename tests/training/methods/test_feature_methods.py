"""FS, SFE, HFGI and StyleRes: what enters the generator, from their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.methods.hfgi import AdaptiveAlignment, ConsultationEncoder
from training.methods.layers import condition
from training.methods.styleres import Alignment, Gates, ResLayer

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def delta(family, batch=1):
    return torch.randn(batch, family.w_rows, family.style_dim) * 0.5


@torch.no_grad()
def test_fs_shifts_the_feature_by_the_generators_difference(make, photo, tiny):
    method = make("fs")
    inversion = method.invert(photo(method))
    assert inversion.feature.shape[2:] == (8, 8)
    step = delta(tiny)
    own = method.decoder.feature(inversion.w, method.point)
    edited = method.decoder.feature(inversion.w + step, method.point)
    shifted = inversion.feature + edited - own
    expected = method.decoder.render(inversion.w + step, method.point, lambda _: shifted)
    torch.testing.assert_close(method.edit(inversion, step), expected, **CLOSE)
    reconstruction = method.decoder.render(inversion.w, method.point, lambda _: inversion.feature)
    torch.testing.assert_close(method.reconstruct(inversion), reconstruction, **CLOSE)


@torch.no_grad()
def test_fs_halves_twice_and_sfe_samples_once(make, tiny):
    image = torch.rand(1, 3, 512, 512)
    fs, sfe = make("fs"), make("sfe")
    means = F.avg_pool2d(image, 4)
    torch.testing.assert_close(fs.invert(image).w, fs.invert(means).w, **CLOSE)
    # One bilinear step of four reads the inner 2 x 2 of each 4 x 4 pixels.
    inner = F.avg_pool2d(image[:, :, 1:-1, 1:-1], 2, stride=4)
    torch.testing.assert_close(sfe.invert(image).w, sfe.invert(inner).w, **CLOSE)
    assert not torch.allclose(sfe.invert(image).w, sfe.invert(means).w, atol=1e-3)
    assert fs.input_size == sfe.input_size == (tiny.size, tiny.size)


@torch.no_grad()
def test_sfe_edits_by_original_less_edited(make, photo, tiny):
    method = make("sfe")
    method.latent_avg += 0.5
    image, step = photo(method), delta(tiny)
    inversion = method.invert(image)
    w_e = method.e4e_encoder(image) + method.latent_avg
    change = method.decoder.feature(w_e, method.point) - method.decoder.feature(w_e + step, method.point)
    offsets, feature = method.inverter.fs_backbone(image)
    w = offsets + method.latent_avg
    fused = method.inverter.fuser(torch.cat([feature, method.decoder.feature(w, method.point)], 1))
    edited = method.encoder(torch.cat([fused, change], 1))
    expected = method.decoder.render(w + step, method.point, lambda _: edited)
    torch.testing.assert_close(method.edit(inversion, step), expected, **CLOSE)
    plain = method.encoder(torch.cat([fused, torch.zeros_like(fused)], 1))
    expected = method.decoder.render(w, method.point, lambda _: plain)
    torch.testing.assert_close(method.reconstruct(inversion), expected, **CLOSE)


@torch.no_grad()
def test_sfe_fusion_blocks_by_their_definition(make):
    net = make("sfe").encoder
    s, x = net.state_dict(), torch.randn(2, 32, 8, 8)

    def norm(name, y):
        return F.batch_norm(y, *(s[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")))

    y = F.conv2d(x, s["conv.weight"], s["conv.bias"])
    for i in range(5):
        b = f"body.{i}.body"
        z = F.conv2d(norm(f"{b}.0", y), s[f"{b}.1.weight"], padding=1)
        z = F.conv2d(F.prelu(norm(f"{b}.2", z), s[f"{b}.3.weight"]), s[f"{b}.4.weight"], padding=1)
        y = y + norm(f"{b}.5", z)
    torch.testing.assert_close(net(x), y, **CLOSE)


@torch.no_grad()
def test_hfgi_scales_and_shifts_the_first_convolution(make, photo, tiny):
    method = make("hfgi")
    image, step = photo(method), delta(tiny)
    inversion = method.invert(image)
    w = method.encoder(image) + method.latent_avg
    size = tiny.encoder_size

    def shown(code):
        return F.interpolate(method.decoder.render(code).clamp(-1, 1), size=size, mode="bilinear", align_corners=False)

    torch.testing.assert_close(inversion.residual, image - shown(w), **CLOSE)
    aligned = method.grid_align(torch.cat([image - shown(w), shown(w + step)], 1))
    scale, shift = method.residue(aligned)
    assert scale.shape == shift.shape == (1, *tiny.feature_shape)
    expected = method.decoder.render(w + step, method.point, lambda x: x + x * scale + shift)
    torch.testing.assert_close(method.edit(inversion, step), expected, **CLOSE)


@torch.no_grad()
def test_hfgi_alignment_is_a_u_net(liven):
    net = liven(AdaptiveAlignment())
    x = torch.randn(1, 6, 32, 32)
    f1 = net.conv_layer1(x)
    f2 = net.conv_layer2(f1)
    f3 = net.conv_layer3(f2)
    f4 = net.conv_layer4(f3)
    assert [tuple(f.shape[1:]) for f in (f1, f2, f3, f4)] == [(16, 32, 32), (32, 16, 16), (48, 8, 8), (64, 4, 4)]

    def up(y):
        return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)

    y = net.dconv_layer1(torch.cat([up(f4), f3], 1))
    y = net.dconv_layer2(torch.cat([up(y), f2], 1))
    y = net.dconv_layer3(torch.cat([up(y), f1], 1))
    torch.testing.assert_close(net(x), y, **CLOSE)


@torch.no_grad()
def test_hfgi_conditions(liven, tiny):
    branch = liven(condition(4, 6))
    s, x = branch.state_dict(), torch.randn(2, 4, 8, 8)
    y = F.conv2d(x, s["0.weight"] / 6, s["0.bias"], padding=1)
    y = F.leaky_relu(y, 0.2) * 2**0.5
    y = F.conv2d(y, s["2.weight"] / 54**0.5, s["2.bias"], padding=1)
    torch.testing.assert_close(branch(x), y, **CLOSE)
    encoder = liven(ConsultationEncoder(tiny))
    scale, shift = encoder(torch.randn(1, 3, 128, 128))
    assert not torch.allclose(scale, shift, atol=1e-2)
    # Another input size is resized to the generator's feature.
    assert encoder(torch.randn(1, 3, 64, 64))[0].shape[2:] == (32, 32)


@torch.no_grad()
@pytest.mark.parametrize(("shape", "plain"), [((4, 4, 1), True), ((4, 4, 2), False), ((4, 2, 1), False)])
def test_styleres_layer_by_its_definition(shape, plain, liven):
    layer = liven(ResLayer(*shape))
    s, x, stride = layer.state_dict(), torch.randn(2, 4, 8, 8), shape[2]
    y = F.leaky_relu(F.conv2d(x, s["res_layer.0.weight"], s["res_layer.0.bias"], padding=1), 0.2)
    y = F.conv2d(y, s["res_layer.2.weight"], s["res_layer.2.bias"], stride=stride, padding=1)
    y = y + (x if plain else F.conv2d(x, s["shortcut_layer.0.weight"], stride=stride))
    torch.testing.assert_close(layer(x), y, **CLOSE)
    assert ("shortcut_layer.0.weight" in s) != plain


@torch.no_grad()
def test_styleres_alignment_aligns_corners(liven):
    net = liven(Alignment(3, 5))
    encoded, feature = torch.randn(1, 3, 16, 16), torch.randn(1, 5, 16, 16)

    def up(y):
        n = y.shape[2]
        position = torch.arange(2 * n)[:, None] * (n - 1) / (2 * n - 1)
        matrix = (1 - (position - torch.arange(n)).abs()).clamp(min=0)
        return matrix @ y @ matrix.T

    f1 = net.conv1(net.first_layer(torch.cat([encoded, feature], 1)))
    f2 = net.conv2(f1)
    f3 = net.conv3(f2)
    assert [f.shape[2] for f in (f1, f2, f3)] == [16, 8, 4]
    expected = net.out_layer(net.dconv2(up(net.dconv1(up(f3) + f2)) + f1))
    torch.testing.assert_close(net(encoded, feature), expected, **CLOSE)
    for parameter in net.dconv3.parameters():
        parameter += 1
    torch.testing.assert_close(net(encoded, feature), expected, **CLOSE)


@torch.no_grad()
def test_styleres_gate_decides_between_feature_and_change(make, photo, tiny):
    method = make("styleres")
    image, step = photo(method), delta(tiny)
    inversion = method.invert(image)
    maps = method.encoder.trunk(image)
    assert maps[0].shape[1:] == (8, 32, 32)
    own = method.decoder.feature(inversion.w, method.point)
    residual = method.modify_feature_extraction(method.modify_feature_alignment(maps[0], own))
    torch.testing.assert_close(inversion.residual, residual, **CLOSE)
    running = method.decoder.feature(inversion.w + step, method.point)
    change, gate = method.modify_feature_gates(running, residual)
    assert gate.shape == (1, 1, 32, 32)
    assert ((gate > 0) & (gate < 1)).all()
    expected = method.decoder.render(inversion.w + step, method.point, lambda _: running + gate * change)
    torch.testing.assert_close(method.edit(inversion, step), expected, rtol=1e-3, atol=1e-3)
    for bias, opened in ((-100.0, running), (100.0, running + change)):
        last = method.modify_feature_gates.convs2[2]
        last.res_layer[2].bias.fill_(bias)
        expected = method.decoder.render(inversion.w + step, method.point, lambda _, f=opened: f)
        torch.testing.assert_close(method.edit(inversion, step), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_styleres_gates_read_feature_first(liven):
    gates = liven(Gates(8))
    x, residual = torch.randn(2, 1, 8, 8, 8)
    both = torch.cat([gates.down1(x), gates.down2(residual)], 1)
    change, gate = gates(x, residual)
    torch.testing.assert_close(change, gates.convs(both))
    torch.testing.assert_close(gate, gates.convs2(both).sigmoid())
