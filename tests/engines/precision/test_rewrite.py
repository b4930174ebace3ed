from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from engines.precision.emulate import Emulated
from engines.precision.fp32_rules import RGB, STYLE
from engines.precision.rewrite import fold_batch_norms, prenormalise
from engines.precision.source import shapes
from engines.precision.typed import retype
from tests.engines.precision.conftest import make_model, modulated, run


def _weight(source: np.random.Generator, scale: float, up: bool, kernel: int = 3) -> np.ndarray:
    shape = (24, 16, kernel, kernel) if up else (16, 24, kernel, kernel)
    return (scale * source.normal(size=shape)).astype(np.float32)


def _exact(model_feeds: dict[str, np.ndarray], weight: np.ndarray, up: bool) -> np.ndarray:
    """The graph's own FP32 result; what rewriting must not change."""
    return run(modulated(weight, up=up), model_feeds)["y"]


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    weight_scale=st.floats(1e-2, 1e3),
    style_scale=st.floats(1e-2, 1e3),
    up=st.booleans(),
)
def test_prenormalisation_changes_nothing(seed, weight_scale, style_scale, up):
    source = np.random.default_rng(seed)
    weight = _weight(source, weight_scale, up)
    feeds = {
        "x": source.normal(size=(2, 24, 8, 8)).astype(np.float32),
        "s": (style_scale * source.normal(size=(2, 24))).astype(np.float32),
    }
    expected = _exact(feeds, weight, up)
    model = modulated(weight, up=up)
    assert len(prenormalise(model, shapes(model))) == 1
    np.testing.assert_allclose(run(model, feeds)["y"], expected, rtol=2e-4, atol=2e-5)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    weight_scale=st.floats(0.1, 1e3),
    style_scale=st.floats(0.1, 1e4),
    activation=st.floats(0.1, 256.0),
    up=st.booleans(),
    peaked=st.booleans(),
)
def test_no_overflow_in_fp16(seed, weight_scale, style_scale, activation, up, peaked):
    """Weights and styles far beyond those of a trained generator, and styles of a single channel."""
    source = np.random.default_rng(seed)
    weight = _weight(source, weight_scale, up)
    styles = style_scale * source.normal(size=(2, 24))
    if peaked:
        styles[:, 1:] *= 1e-3
    feeds = {
        "x": (activation * source.uniform(-1, 1, (2, 24, 8, 8))).astype(np.float32),
        "s": styles.astype(np.float32),
    }
    expected = _exact(feeds, weight, up)
    model = modulated(weight, up=up)
    reasons = retype(model, "fp16")
    assert reasons["sum"] == reasons["inverse"] == STYLE and "conv" not in reasons
    result = Emulated(model, threads=1).run(feeds)["y"]
    assert np.isfinite(result).all()
    # FP16 has eleven bits, and a sum of products may cancel.
    assert np.abs(result - expected).max() < 0.02 * np.abs(expected).max()


def test_without_it_fp16_overflows():
    """The same convolution, only cast: this is what other ports do."""
    source = np.random.default_rng(0)
    weight = _weight(source, 100.0, up=False)
    model = make_model(
        [
            helper.make_node("Unsqueeze", ["s", "axes"], ["sb"], name="spread"),
            helper.make_node("Mul", ["x", "sb"], ["xs"], name="modulate"),
            # The Identity hides the pattern from the pass.
            helper.make_node("Identity", ["xs"], ["hidden"], name="hide"),
            helper.make_node("Conv", ["hidden", "w"], ["y"], name="conv", pads=[1, 1, 1, 1]),
        ],
        {"x": ["batch", 24, 8, 8], "s": ["batch", 24]},
        ["y"],
        {"w": weight, "axes": np.array([2, 3], np.int64)},
    )
    retype(model, "fp16")
    feeds = {
        "x": source.normal(size=(1, 24, 8, 8)).astype(np.float32),
        "s": np.full((1, 24), 100.0, np.float32),
    }
    assert not np.isfinite(Emulated(model, threads=1).run(feeds)["y"]).all()


@pytest.mark.parametrize("style", [0.0, 3e4])
def test_to_rgb_gets_its_scale_back_in_fp32(style):
    """No demodulation: styles of 30,000 would overflow, and styles of nothing would divide by zero."""
    source = np.random.default_rng(1)
    weight = _weight(source, 1.0, up=False, kernel=1)[:3]
    feeds = {
        "x": source.normal(size=(1, 24, 8, 8)).astype(np.float32),
        "s": np.full((1, 24), style, np.float32),
    }
    expected = run(modulated(weight, demodulate=False), feeds)["y"]
    model = modulated(weight, demodulate=False)
    reasons = retype(model, "fp16")
    assert "conv" not in reasons and "add_bias" in reasons
    result = Emulated(model, threads=1).run(feeds)["y"]
    np.testing.assert_allclose(result, expected, atol=2e-3 * max(np.abs(expected).max(), 1.0))


@pytest.mark.parametrize("after_convolution", [True, False])
def test_batch_norm_becomes_arithmetic(after_convolution):
    source = np.random.default_rng(2)
    channels = 6
    norm = [source.normal(size=channels).astype(np.float32) for _ in range(3)]
    variance = source.uniform(0.01, 4, channels).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1])]
    bn = ["gain", "bias", "mean", "variance"]
    if after_convolution:
        nodes.append(helper.make_node("BatchNormalization", ["c", *bn], ["y"], name="norm", epsilon=1e-3))
    else:
        nodes = [
            helper.make_node("BatchNormalization", ["x", *bn], ["n"], name="norm", epsilon=1e-3),
            helper.make_node("Conv", ["n", "w", "b"], ["y"], name="conv", pads=[1, 1, 1, 1]),
        ]
    weights = {
        "w": source.normal(size=(channels, channels, 3, 3)).astype(np.float32),
        "b": source.normal(size=channels).astype(np.float32),
        **dict(zip(bn, [*norm, variance], strict=True)),
    }

    def model():
        return make_model(nodes, {"x": ["batch", channels, 5, 5]}, ["y"], weights)

    feeds = {"x": source.normal(size=(2, channels, 5, 5)).astype(np.float32)}
    expected = run(model(), feeds)["y"]
    folded = model()
    fold_batch_norms(folded)
    operators = [node.op_type for node in folded.graph]
    assert operators == (["Conv"] if after_convolution else ["Mul", "Add", "Conv"])
    np.testing.assert_allclose(run(folded, feeds)["y"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("before", ["Conv", "ConvTranspose", "Relu"])
def test_batch_norms_of_maps_of_any_rank(dimensions, before):
    """SDIC has them over rows of a code, over maps and over cost volumes, after plain and transposed convolutions."""
    source = np.random.default_rng(3)
    inputs, outputs, side = 4, 6, [5, 4, 3][:dimensions]
    channels = inputs if before == "Relu" else outputs
    bn = {name: source.normal(size=channels).astype(np.float32) for name in ("gain", "bias", "mean")}
    bn["variance"] = source.uniform(0.01, 4, channels).astype(np.float32)
    shape = (outputs, inputs) if before == "Conv" else (inputs, outputs)
    weights = bn | {"w": source.normal(size=(*shape, *[2] * dimensions)).astype(np.float32)}
    nodes = [
        helper.make_node(before, ["x"] if before == "Relu" else ["x", "w"], ["c"], name="before"),
        helper.make_node("BatchNormalization", ["c", *bn], ["y"], name="norm"),
    ]

    def model():
        return make_model(nodes, {"x": ["batch", inputs, *side]}, ["y"], weights)

    feeds = {"x": source.normal(size=(2, inputs, *side)).astype(np.float32)}
    expected = run(model(), feeds)["y"]
    folded = model()
    fold_batch_norms(folded)
    operators = [node.op_type for node in folded.graph]
    assert operators == (["Relu", "Mul", "Add"] if before == "Relu" else [before])
    np.testing.assert_allclose(run(folded, feeds)["y"], expected, rtol=1e-4, atol=1e-4)


def test_a_grouped_transposed_convolution_keeps_its_batch_norm_apart():
    source = np.random.default_rng(4)
    bn = {name: source.uniform(0.5, 2, 6).astype(np.float32) for name in ("gain", "bias", "mean", "variance")}
    weights = bn | {"w": source.normal(size=(4, 3, 2, 2)).astype(np.float32)}
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["c"], name="before", group=2),
        helper.make_node("BatchNormalization", ["c", *bn], ["y"], name="norm"),
    ]
    feeds = {"x": source.normal(size=(2, 4, 5, 5)).astype(np.float32)}
    model = make_model(nodes, {"x": ["batch", 4, 5, 5]}, ["y"], weights)
    expected = run(model, feeds)["y"]
    fold_batch_norms(model)
    assert [node.op_type for node in model.graph] == ["ConvTranspose", "Mul", "Add"]
    np.testing.assert_allclose(run(model, feeds)["y"], expected, rtol=1e-4, atol=1e-4)


def test_demodulation_of_weights_by_image_stays_in_fp32():
    """As HyperStyle's: y = (W x s) rsqrt(sum W^2 s^2), W of each image by itself."""
    nodes = [
        helper.make_node("Unsqueeze", ["s", "last"], ["column"], name="column"),
        helper.make_node("Mul", ["x", "column"], ["xs"], name="modulate"),
        helper.make_node("MatMul", ["w", "xs"], ["c"], name="product"),
        helper.make_node("Mul", ["w", "w"], ["ww"], name="square_weight"),
        helper.make_node("Mul", ["column", "column"], ["ss"], name="square_style"),
        helper.make_node("MatMul", ["ww", "ss"], ["e"], name="energy"),
        helper.make_node("Squeeze", ["e", "last"], ["flat"], name="flat"),
        helper.make_node("Sqrt", ["flat"], ["r"], name="root"),
        helper.make_node("Reciprocal", ["r"], ["d"], name="inverse"),
        helper.make_node("Unsqueeze", ["d", "last"], ["db"], name="spread"),
        helper.make_node("Mul", ["c", "db"], ["y"], name="demodulate"),
    ]
    inputs = {"x": ["batch", 4, 9], "s": ["batch", 4], "w": ["batch", 3, 4]}
    model = make_model(nodes, inputs, ["y"], {"last": np.array([2], np.int64)})
    reasons = retype(model, "fp16")
    assert {"energy", "root", "inverse", "square_style"} <= set(reasons) and set(reasons.values()) == {STYLE}
    assert not {"product", "modulate", "demodulate"} & set(reasons)
    source = np.random.default_rng(5)
    feeds = {name: source.normal(size=[2, *shape[1:]]).astype(np.float32) for name, shape in inputs.items()}
    feeds["s"] *= 2e3
    made = Emulated(model, threads=1).run(feeds)["y"]
    squares = np.einsum("boi,bi->bo", feeds["w"].astype(float) ** 2, feeds["s"].astype(float) ** 2)
    exact = feeds["w"] @ (feeds["x"] * feeds["s"][:, :, None]) / np.sqrt(squares)[:, :, None]
    np.testing.assert_allclose(made, exact, rtol=0, atol=1e-2)


def test_a_network_that_looks_at_a_rendered_image_is_no_part_of_it():
    """SDIC, HFGI and HyperStyle render, and give what they see to further convolutions."""
    source = np.random.default_rng(6)
    shapes_of = {"w": (3, 8, 1, 1), "up": (3, 1, 4, 4), "look": (16, 3, 3, 3)}
    weights = {name: source.normal(size=shape).astype(np.float32) for name, shape in shapes_of.items()}
    weights |= {"axes": np.array([2, 3], np.int64), "bias": np.ones((1, 3, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Unsqueeze", ["s", "axes"], ["sb"], name="spread"),
        helper.make_node("Mul", ["x", "sb"], ["xs"], name="modulate"),
        helper.make_node("Conv", ["xs", "w"], ["c"], name="to_rgb"),
        helper.make_node("Add", ["c", "bias"], ["rgb"], name="add_bias"),
        helper.make_node("ConvTranspose", ["rgb", "up"], ["large"], name="upsample", group=3, strides=[2, 2]),
        helper.make_node("Conv", ["large", "look"], ["y"], name="look"),
    ]
    model = make_model(nodes, {"x": ["batch", 8, 4, 4], "s": ["batch", 8]}, ["y"], weights)
    reasons = retype(model, "fp16")
    assert {name for name, reason in reasons.items() if reason == RGB} >= {"add_bias", "upsample"}
    assert "look" not in reasons and "to_rgb" not in reasons


def test_two_passes_with_one_code_share_no_factor():
    """HFGI renders twice with one code, and the exporter merges what is computed twice: styles, energies, factors."""
    source = np.random.default_rng(7)
    weights = {
        "w": (300 * source.normal(size=(6, 6, 3, 3))).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    weights["energy"] = np.square(weights["w"]).sum(axis=(2, 3))
    nodes = [
        helper.make_node("Unsqueeze", ["s", "axes"], ["sb"], name="spread"),
        helper.make_node("Mul", ["s", "s"], ["ss"], name="square"),
        helper.make_node("Gemm", ["ss", "energy"], ["e"], name="sum", transB=1),
        helper.make_node("Sqrt", ["e"], ["r"], name="root"),
        helper.make_node("Reciprocal", ["r"], ["d"], name="inverse"),
        helper.make_node("Unsqueeze", ["d", "axes"], ["db"], name="spread_d"),
    ]
    for one in "ab":
        nodes += [
            helper.make_node("Mul", [one, "sb"], [f"{one}s"], name=f"modulate_{one}"),
            helper.make_node("Conv", [f"{one}s", "w"], [f"{one}c"], name=f"conv_{one}", pads=[1] * 4),
            helper.make_node("Mul", [f"{one}c", "db"], [f"{one}y"], name=f"demodulate_{one}"),
        ]
    inputs = {"a": ["batch", 6, 5, 5], "b": ["batch", 6, 5, 5], "s": ["batch", 6]}
    feeds = {name: source.normal(size=[2, *shape[1:]]).astype(np.float32) for name, shape in inputs.items()}
    feeds["s"] *= 50

    def model():
        return make_model(nodes, inputs, ["ay", "by"], weights)

    expected = run(model(), feeds)
    folded = model()
    made = prenormalise(folded, shapes(folded))
    assert [one.rgb for one in made] == [None, None] and len({id(one.vectors[1]) for one in made}) == 2
    for name, value in run(folded, feeds).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-4, atol=2e-5)
    typed = model()
    assert RGB not in retype(typed, "fp16").values()
    emulated = Emulated(typed, watch=True, threads=1)
    for name, value in emulated.run(feeds).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=2e-2)
    assert max(emulated.peaks.values()) < 1e4


def _mobile(depthwise: np.ndarray | None, weight: np.ndarray):
    """A MobileStyleGAN convolution as its export writes it: style, depthwise 3x3 (if any), dense, noise, leaky ReLU."""
    nodes = [
        helper.make_node("Gemm", ["code", "modulation"], ["s"], name="style"),
        helper.make_node("Unsqueeze", ["s", "axes"], ["sb"], name="spread"),
        helper.make_node("Mul", ["x", "sb"], ["xs"], name="modulate"),
        helper.make_node(
            "Conv", ["d" if depthwise is not None else "xs", "w"], ["c"], name="dense", pads=_pads(weight)
        ),
        helper.make_node("Add", ["c", "noise"], ["n"], name="add_noise"),
        helper.make_node("LeakyRelu", ["n"], ["y"], name="activate", alpha=0.2),
    ]
    weights = {"w": weight, "axes": np.array([2, 3], np.int64), "noise": np.full((1, 1, 8, 8), 0.1, np.float32)}
    weights["modulation"] = np.linspace(-1, 1, 8 * 24, dtype=np.float32).reshape(8, 24)
    if depthwise is not None:
        weights["dw"] = depthwise
        nodes.insert(3, helper.make_node("Conv", ["xs", "dw"], ["d"], name="filter", pads=[1] * 4, group=24))
    return make_model(nodes, {"x": ["batch", 24, 8, 8], "code": ["batch", 8]}, ["y"], weights)


def _pads(weight: np.ndarray) -> list[int]:
    return [weight.shape[2] // 2] * 4


@pytest.mark.parametrize("separable", [True, False])
def test_demodulation_that_is_in_the_weights_leaves_them_alone(separable):
    """Nothing would take a factor back: weights stay as they are, in FP16, no cast between them; styles are FP32."""
    source = np.random.default_rng(3)
    depthwise = _weight(source, 10.0, up=False)[:, :1].repeat(2, 0)[:24] if separable else None
    weight = _weight(source, 0.1, up=False, kernel=1 if separable else 3)
    feeds = {
        "x": (5 * source.normal(size=(2, 24, 8, 8))).astype(np.float32),
        "code": source.normal(size=(2, 8)).astype(np.float32),
    }
    expected = run(_mobile(depthwise, weight), feeds)["y"]
    model = _mobile(depthwise, weight)
    (found,) = prenormalise(model, shapes(model))
    assert found.rgb is None and np.array_equal(run(model, feeds)["y"], expected)
    reasons = retype(model, "fp16")
    assert reasons == {"style": STYLE}
    first = "filter" if separable else "dense"
    (node,) = (n for n in model.graph if n.name == first)
    assert np.abs(node.inputs[1].const_value.numpy() - (depthwise if separable else weight)).max() < 0.02
    operators = [n.op_type for n in model.graph]
    assert operators.count("Cast") == 3, "in, the style, and out"
    result = Emulated(model, threads=1).run(feeds)["y"]
    assert np.abs(result - expected).max() < 0.005 * np.abs(expected).max()


def test_the_bias_of_an_image_is_added_after_the_factors():
    """A ToRGB whose exporter put the bias into the convolution: the factors belong to the sum of products alone."""
    source = np.random.default_rng(7)
    nodes = [
        helper.make_node("Gemm", ["code", "modulation"], ["s"], name="style"),
        helper.make_node("Unsqueeze", ["s", "axes"], ["sb"], name="spread"),
        helper.make_node("Mul", ["x", "sb"], ["xs"], name="modulate"),
        helper.make_node("Conv", ["xs", "w", "b"], ["c"], name="image"),
        helper.make_node("DepthToSpace", ["c"], ["y"], name="up", blocksize=2, mode="CRD"),
    ]
    weights = {
        "modulation": np.linspace(-1, 1, 8 * 24, dtype=np.float32).reshape(8, 24),
        "axes": np.array([2, 3], np.int64),
        "w": (0.05 * source.normal(size=(12, 24, 1, 1))).astype(np.float32),
        "b": source.normal(size=12).astype(np.float32),
    }
    feeds = {
        "x": source.normal(size=(2, 24, 8, 8)).astype(np.float32),
        "code": source.normal(size=(2, 8)).astype(np.float32),
    }

    def image():
        return make_model(nodes, {"x": ["batch", 24, 8, 8], "code": ["batch", 8]}, ["y"], weights)

    expected = run(image(), feeds)["y"]
    model = image()
    (found,) = prenormalise(model, shapes(model))
    assert found.rgb is not None
    np.testing.assert_allclose(run(model, feeds)["y"], expected, rtol=1e-5, atol=1e-5)
    typed = image()
    retype(typed, "fp16")
    assert np.abs(Emulated(typed, threads=1).run(feeds)["y"] - expected).max() < 0.005 * np.abs(expected).max()


def test_a_style_that_meets_no_convolution_is_a_style_as_well():
    """MobileStyleGAN's doublings: a map times its style, then sums."""
    nodes = [
        helper.make_node("Gemm", ["code", "modulation"], ["s"], name="style"),
        helper.make_node("Unsqueeze", ["s", "axes"], ["sb"], name="spread"),
        helper.make_node("Mul", ["x", "sb"], ["xs"], name="modulate"),
        helper.make_node("DepthToSpace", ["xs"], ["y"], name="up", blocksize=2, mode="CRD"),
    ]
    weights = {"modulation": np.eye(8, dtype=np.float32), "axes": np.array([2, 3], np.int64)}
    model = make_model(nodes, {"x": ["batch", 8, 4, 4], "code": ["batch", 8]}, ["y"], weights)
    assert prenormalise(model, shapes(model)) == [] and retype(model, "fp16") == {"style": STYLE}
