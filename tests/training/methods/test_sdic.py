from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.methods.protocol import encoder_view
from training.methods.sdic import SpatialAttentionFusion
from training.methods.sdic_volume import BasicConv, ContextFusion, DiscrepancyPrediction, Hourglass

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


class Layers:
    """The functional form of layers by their names in a state dict."""

    def __init__(self, module):
        self.s = module.state_dict()

    def bn(self, name, x):
        s = (self.s[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *s)

    def conv(self, name, x, **options):
        run = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[x.dim() - 2]
        return run(x, self.s[f"{name}.weight"], self.s.get(f"{name}.bias"), **options)

    def basic(self, name, x, **options):
        return F.leaky_relu(self.bn(f"{name}.bn", self.conv(f"{name}.conv", x, **options)), 0.01)


@torch.no_grad()
@pytest.mark.parametrize("volume", [False, True])
def test_basic_convolutions(volume, liven):
    x = torch.randn(2, 3, *([4] * volume), 6, 6)
    layer = liven(BasicConv(3, 5, stride=2, volume=volume))
    torch.testing.assert_close(layer(x), _basic(layer, x, 2), **CLOSE)
    up = liven(BasicConv(3, 5, 4, 2, 1, volume=volume, up=True))
    assert up(x).shape == (2, 5, *([8] * volume), 12, 12)
    bare = liven(BasicConv(3, 5, 4, 2, 1, volume=volume, up=True, activate=False))
    assert torch.equal(bare(x), bare.conv(x))
    assert "bn.weight" in bare.state_dict()


def _basic(layer, x, stride):
    f = Layers(layer)
    return F.leaky_relu(f.bn("bn", f.conv("conv", x, stride=stride, padding=1)), 0.01)


@torch.no_grad()
def test_context_enters_through_a_gate(liven):
    fusion = liven(ContextFusion(4, 10))
    f, volume, image = Layers(fusion), torch.randn(2, 4, 3, 8, 8), torch.randn(2, 10, 8, 8)
    g = f.conv("semantic.1", f.basic("semantic.0", image))[:, :, None]
    a = f.conv("att.1", f.basic("att.0", g + volume, padding=(0, 2, 2)))
    expected = f.basic("agg", a.sigmoid() * g + volume, padding=(0, 2, 2))
    torch.testing.assert_close(fusion(volume, image), expected, **CLOSE)


@torch.no_grad()
def test_hourglass_by_its_definition(liven):
    net = liven(Hourglass(8))
    volume = torch.randn(1, 8, 8, 16, 16)
    maps = [torch.empty(0), torch.randn(1, 64, 8, 8), torch.randn(1, 192, 4, 4), torch.randn(1, 160, 2, 2)]
    v1 = net.conv1(volume)
    v2 = net.conv2(v1)
    v3 = net.CGF_32(net.conv3(v2), maps[3])
    assert [tuple(v.shape[1:]) for v in (v1, v2, v3)] == [(16, 4, 8, 8), (32, 2, 4, 4), (48, 1, 2, 2)]
    v2 = net.CGF_16(net.agg_0(torch.cat([net.conv3_up(v3), v2], 1)), maps[2])
    v1 = net.CGF_8(net.agg_1(torch.cat([net.conv2_up(v2), v1], 1)), maps[1])
    expected = F.conv_transpose3d(v1, net.conv1_up.conv.weight, stride=2, padding=1)
    assert expected.shape == (1, 1, 8, 16, 16)
    torch.testing.assert_close(net(volume, maps), expected, **CLOSE)


@torch.no_grad()
def test_discrepancy_prediction(liven):
    net = liven(DiscrepancyPrediction())
    left, right = torch.randn(2, 1, 3, 32, 32)

    def features(image, branch):
        x1 = branch.fe1(image)
        x2 = branch.fe3(branch.fe2(x1))
        x4 = branch.fe4(x2)
        x8 = branch.fe5(x4)
        up = net.feature_up
        y4 = up.deconv8_4.conv2(torch.cat([up.deconv8_4.conv1(x8), x4], 1))
        y2 = up.deconv4_2.conv2(torch.cat([up.deconv4_2.conv1(y4), x2], 1))
        y1 = up.conv4(up.deconv2_1.conv2(torch.cat([up.deconv2_1.conv1(y2), x1], 1)))
        return [y1, y2, y4, x8]

    a, b = features(left, net.feature1), features(right, net.feature2)
    assert [(y.shape[1], y.shape[2]) for y in a] == [(32, 32), (64, 16), (192, 8), (160, 4)]
    volume = torch.cat([net.desc(net.conv(y)) for y in (a[0], b[0])], 1)[:, None]
    volume = net.hourglass_fusion(net.corr_stem(volume), a)[:, 0]
    assert volume.shape == (1, 48, 32, 32)
    expected = net.rgb(F.relu(net.rgb1[2](net.rgb1[1](net.rgb1[0](volume)))))
    found = net(left, right)
    torch.testing.assert_close(found, expected, **CLOSE)
    # Photo and reconstruction are not interchangeable.
    assert not torch.allclose(net(right, left), found, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_parts_that_nothing_runs(liven):
    net = liven(DiscrepancyPrediction())
    left, right = torch.randn(2, 1, 3, 32, 32)
    before = net(left, right)
    unused = [net.stem_2, net.stem_4, net.spx, net.spx_2, net.spx_4, net.semantic, net.agg]
    assert sum(p.numel() for part in unused for p in part.parameters()) == 174_203 - 2
    for part in [*unused, net.hourglass_fusion.conv1_up.bn]:
        for parameter in part.parameters():
            parameter += 1
    assert torch.equal(net(left, right), before)


@torch.no_grad()
def test_saf_by_its_definition(liven, tiny):
    saf = liven(SpatialAttentionFusion(tiny))
    f, rows, width = Layers(saf), tiny.w_rows, tiny.style_dim
    r, feature, w = torch.randn(2, 3, 128, 128), torch.randn(2, 16, 32, 32), torch.randn(2, rows, width)
    x = F.prelu(f.bn("conv_layer1.1", f.conv("conv_layer1.0", r, padding=1)), saf.conv_layer1[2].weight)
    x = f.conv("semantic.1", f.basic("semantic.0", x, stride=2, padding=1), padding=1)
    s = f.conv("semantic.3", f.basic("semantic.2", x, stride=2, padding=1), padding=1)
    gate = f.conv("att.1", f.basic("att.0", s + feature, padding=1), padding=1).sigmoid()
    c = F.interpolate(saf.condition_shift3(r), size=(32, 32), mode="bilinear", align_corners=False)
    c = torch.stack([image.flatten().view(-1, width) for image in c])

    def branch(name):
        y = F.leaky_relu(f.bn(f"aff1d.{name}.1", f.conv(f"aff1d.{name}.0", sen, padding=1)), 0.01)
        return f.conv(f"aff1d.{name}.3", y)

    sen = f.conv("aff1d.sen.3", F.leaky_relu(f.bn("aff1d.sen.1", f.conv("aff1d.sen.0", c)), 0.01))
    code, fused = saf(r, feature, w)
    torch.testing.assert_close(fused, gate * s + feature, **CLOSE)
    torch.testing.assert_close(code, branch("att") * w + w + branch("att2"), **CLOSE)


@torch.no_grad()
def test_edits_go_to_the_corrected_code_and_shift_the_feature(make, photo, tiny):
    method = make("sdic")
    image = photo(method)
    inversion = method.invert(image)
    w = method.encoder(image) + method.latent_avg
    own = method.decoder.feature(w, method.point)
    discrepancy = method.DIP(image, encoder_view(method.decoder.render(w), tiny))
    corrected, fused = method.SAF(discrepancy, own, w)
    torch.testing.assert_close(inversion.w, corrected, **CLOSE)
    step = torch.randn(1, tiny.w_rows, tiny.style_dim) * 0.5
    shifted = fused - own + method.decoder.feature(corrected + step, method.point)
    expected = method.decoder.render(corrected + step, method.point, lambda _: shifted)
    torch.testing.assert_close(method.edit(inversion, step), expected, rtol=1e-3, atol=1e-3)
    expected = method.decoder.render(corrected, method.point, lambda _: fused)
    torch.testing.assert_close(method.reconstruct(inversion), expected, rtol=1e-3, atol=1e-3)
