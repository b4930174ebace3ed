"""Names and shapes of the official files' parts that only one method has; see `official`."""

from __future__ import annotations

import itertools

from tests.training.importers.official import (
    Shapes,
    Sizes,
    bn,
    conv,
    conv3,
    halvings,
    ir_units,
    linear,
    pyramid,
    stem,
    style_head,
    under,
)


def condition(name: str, i: int, o: int) -> Shapes:
    return conv3(f"{name}.0", i, o, bias=True) | conv3(f"{name}.2", o, o, bias=True)


def residue(s: Sizes) -> Shapes:
    found = stem("conv_layer1", 32)
    found |= ir_units("conv_layer2", (32, 48), (48, 48), (48, 48)) | ir_units(
        "conv_layer3", (48, 64), (64, 64), (64, 64)
    )
    return found | condition("condition_scale3", 64, s.feature) | condition("condition_shift3", 64, s.feature)


def grid_align() -> Shapes:
    found = stem("conv_layer1", 16, 6)
    for name, *shapes in (
        ("conv_layer2", (16, 32), (32, 32), (32, 32)),
        ("conv_layer3", (32, 48), (48, 48), (48, 48)),
        ("conv_layer4", (48, 64), (64, 64), (64, 64)),
        ("dconv_layer1", (112, 64), (64, 32), (32, 32)),
        ("dconv_layer2", (64, 32), (32, 16), (16, 16)),
        ("dconv_layer3", (32, 16), (16, 3), (3, 3)),
    ):
        found |= ir_units(name, *shapes)
    return found


def attention_block(name: str, d: int) -> Shapes:
    found: Shapes = {
        f"{name}.multihead_attn.in_proj_weight": (3 * d, d),
        f"{name}.multihead_attn.in_proj_bias": (3 * d,),
        **linear(f"{name}.multihead_attn.out_proj", d, d),
        **linear(f"{name}.linear1", d, 2 * d),
        **linear(f"{name}.linear2", 2 * d, d),
    }
    return found | {f"{name}.norm{n}.{k}": (d,) for n in (1, 2, 3) for k in ("weight", "bias")}


def clcae(s: Sizes) -> Shapes:
    found = pyramid(s) | style_head("styles.0", halvings(s, 0), s.head, s.style)
    for row in range(1, s.rows):
        found |= style_head(f"styles_others.{row - 1}", halvings(s, row), s.head, s.style)
    for row in range(s.rows):
        found |= attention_block(f"cross_attention.{row}", s.style)
    found |= attention_block("feature_cross_attention", s.style)
    c = s.channels(s.input // 16)
    return (
        found | conv3("content_layer.convs.0", s.head, c, bias=True) | conv3("content_layer.convs.2", c, c, bias=True)
    )


def res_layer(name: str, i: int, o: int) -> Shapes:
    found = conv3(f"{name}.res_layer.0", i, o, bias=True) | conv3(f"{name}.res_layer.2", o, o, bias=True)
    return found | (conv(f"{name}.shortcut_layer.0", i, o, 1, 1) if i != o else {})


def styleres_modules(s: Sizes) -> Shapes:
    """Under `synthesis.b64.`."""
    c, name = s.feature, "modify_feature_alignment"
    found = conv(f"{name}.first_layer", 2 * s.width + c, c, 1, 1, bias=True)
    for part, count in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("dconv1", 2), ("dconv2", 2), ("dconv3", 2)):
        for i in range(count):
            found |= res_layer(f"{name}.{part}.{i}", c, c)
            if part in ("conv2", "conv3") and i == 0:
                # It strides, so its shortcut is a convolution although the width stays.
                found |= conv(f"{name}.{part}.0.shortcut_layer.0", c, c, 1, 1)
    found |= conv(f"{name}.out_layer", c, c, 1, 1, bias=True)
    name = "modify_feature_extraction"
    found |= conv(f"{name}.first_layer", c, c, 1, 1, bias=True)
    for i in range(3):
        found |= res_layer(f"{name}.convs.{i}", c, c)
    name = "modify_feature_gates"
    for part in ("down1", "down2"):
        found |= conv3(f"{name}.{part}", c, c // 2, bias=True)
    for i in range(3):
        found |= res_layer(f"{name}.convs.{i}", c, c)
        found |= res_layer(f"{name}.convs2.{i}", c, c if i < 2 else 1)
    return found


def hypernet(s: Sizes) -> Shapes:
    """The second names of the shared network included."""
    w, c = s.width, s.widest
    found = conv("conv1", 6, w, 7, 7) | bn("bn1", w) | {"relu.weight": (w,)}
    before, index = w, 0
    for n, count in enumerate((3, 4, 6, 3)):
        for i in range(count):
            o, name = w << n, f"body.{index}"
            found |= conv3(f"{name}.conv1", before, o) | bn(f"{name}.bn1", o)
            found |= conv3(f"{name}.conv2", o, o) | bn(f"{name}.bn2", o)
            if n and i == 0:
                found |= conv(f"{name}.downsample.0", before, o, 1, 1) | bn(f"{name}.downsample.1", o)
            before, index = o, index + 1
    shared = {"w1": (c, 9 * c), "b1": (9 * c,), "w2": (c, c * c), "b2": (c * c,)}
    found |= under("shared_weight_hypernet", shared)
    widths = [(s.channels(4), s.channels(4))]
    for r in s.resolutions:
        widths += [(s.channels(r // 2), s.channels(r)), (s.channels(r), s.channels(r))]
    inner = before // 4
    for conv_index, (i, o) in enumerate(widths):
        delta = conv_index + (conv_index + 1) // 2
        name = f"refinement_blocks.{delta}"
        if i == o == c:
            steps = (s.input // 16).bit_length() - 1
            sides = [before, *[inner] * steps, c]
            for n, (a, b) in enumerate(itertools.pairwise(sides)):
                found |= conv3(f"{name}.convs.{2 * n}", a, b, bias=True)
            found |= linear(f"{name}.linear", c, c) | under(f"{name}.hypernet", shared)
        else:
            sides = [before, before // 2, before // 2, before]
            for n, (a, b) in enumerate(itertools.pairwise(sides)):
                found |= conv3(f"{name}.convs.{2 * n}", a, b, bias=True)
            found |= conv(f"{name}.output.1", before, i * o, 1, 1, bias=True)
    return found


def basic(name: str, i: int, o: int, *kernel: int, up: bool = False) -> Shapes:
    kernel = kernel or (3, 3)
    return {f"{name}.conv.weight": (i, o, *kernel) if up else (o, i, *kernel)} | bn(f"{name}.bn", o)


def _tail(name: str, i: int, o: int) -> Shapes:
    return basic(f"{name}.0", i, o) | conv3(f"{name}.1", o, o) | bn(f"{name}.2", o)


def dip() -> Shapes:
    k3, k4, k5, k1 = (3, 3, 3), (4, 4, 4), (1, 5, 5), (1, 1, 1)
    found: Shapes = {}
    for branch in ("feature1", "feature2"):
        for n, (i, o) in enumerate(((3, 16), (16, 24), (24, 32), (32, 96), (96, 160)), 1):
            found |= basic(f"{branch}.fe{n}", i, o)
    for name, i, o, both in (("deconv8_4", 160, 96, 192), ("deconv4_2", 192, 32, 64), ("deconv2_1", 64, 16, 32)):
        found |= basic(f"feature_up.{name}.conv1", i, o, 4, 4, up=True) | basic(f"feature_up.{name}.conv2", both, both)
    found |= basic("feature_up.conv4", 32, 32) | basic("conv", 32, 48) | conv("desc", 48, 24, 1, 1, bias=True)
    found |= _tail("stem_2", 3, 32) | _tail("stem_4", 32, 48) | _tail("spx_4", 96, 32) | _tail("rgb1", 48, 16)
    found |= {"spx.0.weight": (64, 9, 4, 4), "spx.0.bias": (9,)}
    found |= basic("spx_2.conv1", 32, 32, 4, 4, up=True) | basic("spx_2.conv2", 64, 64)
    found |= basic("semantic.0", 96, 32) | conv("semantic.1", 32, 8, 1, 1) | basic("agg", 8, 8, *k5)
    found |= basic("corr_stem", 1, 8, *k3) | ir_units("rgb", (16, 3), (3, 3), (3, 3))
    glass = "hourglass_fusion"
    for n, (i, o) in enumerate(((8, 16), (16, 32), (32, 48)), 1):
        found |= basic(f"{glass}.conv{n}.0", i, o, *k3) | basic(f"{glass}.conv{n}.1", o, o, *k3)
    for n, i, o in ((3, 48, 32), (2, 32, 16), (1, 16, 1)):
        found |= basic(f"{glass}.conv{n}_up", i, o, *k4, up=True)
    for n, c in ((0, 32), (1, 16)):
        found |= basic(f"{glass}.agg_{n}.0", 2 * c, c, *k1)
        found |= basic(f"{glass}.agg_{n}.1", c, c, *k3) | basic(f"{glass}.agg_{n}.2", c, c, *k3)
    for n, c, image in ((32, 48, 160), (16, 32, 192), (8, 16, 64)):
        name = f"{glass}.CGF_{n}"
        found |= basic(f"{name}.semantic.0", image, image // 2, 1, 1)
        found |= conv(f"{name}.semantic.1", image // 2, c, 1, 1, bias=True)
        found |= basic(f"{name}.att.0", c, c, *k5) | conv(f"{name}.att.1", c, c, *k1) | basic(f"{name}.agg", c, c, *k5)
    return found


def saf(s: Sizes) -> Shapes:
    c, n = s.feature, s.rows
    im = n * (s.input // 4) ** 2 // s.style
    found = stem("conv_layer1", 32) | basic("semantic.0", 32, 64) | conv3("semantic.1", 64, 64)
    found |= basic("semantic.2", 64, c) | conv3("semantic.3", c, c) | conv3("conv1", c, c)
    for name, i in (("att", c), ("aff1", c), ("aff2", 2 * c)):
        found |= basic(f"{name}.0", i, c) | conv3(f"{name}.1", c, c)
    found |= condition("condition_shift3", 3, n)
    found |= conv("aff1d.sen.0", im, im // 2, 1, bias=True) | bn("aff1d.sen.1", im // 2)
    found |= conv("aff1d.sen.3", im // 2, n, 1, bias=True)
    for name in ("att", "att2", "agg"):
        found |= conv(f"aff1d.{name}.0", n, n, 3, bias=True) | bn(f"aff1d.{name}.1", n)
        if name != "agg":
            found |= conv(f"aff1d.{name}.3", n, n, 1)
    return found
