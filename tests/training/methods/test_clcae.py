from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from training.methods.clcae import CrossAttentionBlock

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@torch.no_grad()
def test_block_equals_torchs_attention_between_post_norms(liven):
    block = liven(CrossAttentionBlock(16))
    oracle = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    # The same tensors under the same names.
    oracle.load_state_dict(block.multihead_attn.state_dict())
    query, memory = torch.randn(2, 7, 16), torch.randn(2, 5, 16)
    s = block.state_dict()

    def norm(name, x):
        return F.layer_norm(x, (16,), s[f"{name}.weight"], s[f"{name}.bias"])

    t = norm("norm2", query + oracle(query, memory, memory)[0])
    hidden = F.relu(F.linear(t, s["linear1.weight"], s["linear1.bias"]))
    expected = norm("norm3", t + F.linear(hidden, s["linear2.weight"], s["linear2.bias"]))
    torch.testing.assert_close(block(query, memory), expected, **CLOSE)
    block.norm1.weight += 1
    torch.testing.assert_close(block(query, memory), expected, **CLOSE)


@torch.no_grad()
def test_one_token_of_memory_makes_queries_and_keys_idle(liven):
    block = liven(CrossAttentionBlock(16))
    query, memory = torch.randn(2, 7, 16), torch.randn(2, 1, 16)
    before = block(query, memory)
    block.multihead_attn.in_proj_weight[:32].normal_()
    torch.testing.assert_close(block(query, memory), before, **CLOSE)


@torch.no_grad()
def test_encoder_by_its_definition(make, photo, tiny):
    method = make("clcae")
    encoder = method.encoder
    image = photo(method)
    maps = encoder.pyramid(image)
    base = encoder.styles[0](maps[0])
    values = [base]
    for j, head in enumerate(encoder.styles_others):
        values.append(head(maps[0 if j < 2 else 1 if j < 6 else 2]))
    offsets, found_base, feature = encoder(image)
    assert torch.equal(found_base, base)
    for k, value in enumerate(values):
        expected = encoder.cross_attention[k](base[:, None], value[:, None])[:, 0]
        torch.testing.assert_close(offsets[:, k], expected, **CLOSE)
    tokens = maps[2].permute(0, 2, 3, 1).reshape(1, 32 * 32, 16)
    attended = encoder.feature_cross_attention(tokens, base[:, None]).reshape(1, 32, 32, 16).permute(0, 3, 1, 2)
    torch.testing.assert_close(feature, encoder.content_layer(attended), **CLOSE)
    assert feature.shape == (1, 16, 8, 8)


@torch.no_grad()
def test_an_edit_in_w_encodes_anew_with_the_moved_base(make, photo, tiny):
    method = make("clcae")
    image, direction = photo(method), torch.randn(1, tiny.style_dim) * 0.5
    inversion = method.invert(image)
    # The published way: a second run of the whole encoder, its first head's output moved.
    handle = method.encoder.styles[0].register_forward_hook(lambda module, args, out: out + direction)
    offsets, base, feature = method.encoder(image - method.mean_image)
    handle.remove()
    w = offsets + base[:, None] + method.latent_avg
    shifted = feature + method.decoder.feature(w, method.point) - method.decoder.feature(inversion.w, method.point)
    expected = method.decoder.render(w, method.point, lambda _: shifted)
    torch.testing.assert_close(method.edit(inversion, direction), expected, **CLOSE)
    rows = direction[:, None].expand(-1, tiny.w_rows, -1)
    moved = inversion.w + rows
    shifted = inversion.feature + method.decoder.feature(moved, method.point) - inversion.generator_feature
    expected_rows = method.decoder.render(moved, method.point, lambda _: shifted)
    torch.testing.assert_close(method.edit(inversion, rows), expected_rows, **CLOSE)
    assert not torch.allclose(expected, expected_rows, atol=1e-2)


@torch.no_grad()
def test_the_mean_image_is_taken_off(make, photo):
    method = make("clcae")
    image = photo(method)
    before = method.invert(image + method.mean_image).w
    method.mean_image.zero_()
    torch.testing.assert_close(method.invert(image).w, before, **CLOSE)


@torch.no_grad()
def test_cars_pad_the_attended_map(make, photo, tiny_cars):
    method = make("clcae", tiny_cars)
    image = photo(method)
    encoder = method.encoder
    maps = encoder.pyramid(image)
    assert maps[2].shape[2:] == (24, 32)
    tokens = encoder.feature_cross_attention(maps[2].flatten(2).transpose(1, 2), encoder.styles[0](maps[0])[:, None])
    attended = F.pad(tokens.transpose(1, 2).reshape(1, 16, 24, 32), (0, 0, 4, 4))
    torch.testing.assert_close(encoder(image)[2], encoder.content_layer(attended), **CLOSE)
