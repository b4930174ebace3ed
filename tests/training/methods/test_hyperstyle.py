from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from training.methods.hyperstyle import HyperStyle, SharedHypernet

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@torch.no_grad()
def test_shared_network_orders_rows_by_output_channel(liven):
    net = liven(SharedHypernet(6))
    z = torch.randn(2, 6)
    for image, delta in zip(z, net(z), strict=True):
        rows = (image @ net.w2 + net.b2).view(6, 6)
        for out in range(6):
            expected = (rows[out] @ net.w1 + net.b1).view(6, 3, 3)
            torch.testing.assert_close(delta[out], expected, **CLOSE)


@torch.no_grad()
def test_hypernetwork_by_its_definition(make, tiny):
    net = make("hyperstyle").hypernet
    x = torch.randn(2, 6, 128, 128)
    s = net.state_dict()

    def norm(name, y):
        return F.batch_norm(y, *(s[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")))

    y = F.prelu(norm("bn1", F.conv2d(x, s["conv1.weight"], stride=2, padding=3)), s["relu.weight"])
    assert y.shape[2] == 64
    for i in range(16):
        b, stride = f"body.{i}", 2 if i in (3, 7, 13) else 1
        z = F.relu(norm(f"{b}.bn1", F.conv2d(y, s[f"{b}.conv1.weight"], stride=stride, padding=1)))
        z = norm(f"{b}.bn2", F.conv2d(z, s[f"{b}.conv2.weight"], padding=1))
        if stride == 2:
            y = norm(f"{b}.downsample.1", F.conv2d(y, s[f"{b}.downsample.0.weight"], stride=2))
        y = F.relu(z + y)
    assert y.shape == (2, 32, 8, 8)
    deltas = net(x)
    assert len(deltas) == 9
    for (key, block), delta in zip(net.refinement_blocks.items(), deltas, strict=True):
        z = y
        for n in range(0, len(block.convs), 2):
            stride = block.convs[n].stride[0]
            name = f"refinement_blocks.{key}.convs.{n}"
            z = F.leaky_relu(F.conv2d(z, s[f"{name}.weight"], s[f"{name}.bias"], stride=stride, padding=1), 0.01)
        if int(key) <= 9:
            # The first convolution keeps the size, the others halve the 8-pixel map to one.
            assert [layer.stride[0] for layer in block.convs[::2]] == [1, 2, 2, 2]
            assert z.shape[2:] == (1, 1)
            expected = net.shared_weight_hypernet(block.linear(z[:, :, 0, 0]))
        else:
            assert len(block.convs) == 6
            z = z.mean(dim=(2, 3), keepdim=True)
            out = F.conv2d(
                z, s[f"refinement_blocks.{key}.output.1.weight"], s[f"refinement_blocks.{key}.output.1.bias"]
            )
            expected = out.view(2, *delta.shape[1:3], 1, 1)
        torch.testing.assert_close(delta, expected, **CLOSE)
    # The 64-pixel block narrows from 16 channels to 8.
    assert [tuple(delta.shape[1:3]) for delta in deltas[-2:]] == [(8, 16), (8, 8)]


@torch.no_grad()
def test_refinements_add_up_while_the_code_stays(make, photo, tiny):
    method = make("hyperstyle")
    image = photo(method)
    assert method.refinements == 5
    w = method.w_encoder(image)[:, None] + method.latent_avg
    deltas, rendered = None, method.decoder.render(w)
    for _ in range(5):
        pooled = F.interpolate(rendered, size=(128, 128), mode="nearest")  # 64 to 128: each pixel four times
        found = method.hypernet(torch.cat([image, pooled], 1))
        deltas = found if deltas is None else [a + b for a, b in zip(deltas, found, strict=True)]
        rendered = method.decoder.render(w, deltas=dict(enumerate(deltas)))
    inversion = method.invert(image)
    torch.testing.assert_close(inversion.w, w)
    for found, expected in zip(inversion.deltas, deltas, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(method.reconstruct(inversion), rendered, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_w_encoder_pools_the_trunk(make, photo):
    encoder = make("hyperstyle").w_encoder
    image = photo(make("e4e"))
    expected = encoder.linear(F.adaptive_avg_pool2d(encoder.trunk(image)[2], 1).flatten(1))
    torch.testing.assert_close(encoder(image), expected, **CLOSE)


def test_no_refinements_are_refused(tiny):
    with pytest.raises(ValueError, match="at least 1 refinement"):
        HyperStyle(tiny, refinements=0)
