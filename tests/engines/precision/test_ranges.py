"""What a product can give at worst, from its weights and the largest value that enters it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from engines.precision.emulate import Emulated
from engines.precision.ranges import LIMIT, Product, least_margin, products
from engines.precision.source import load_source
from engines.precision.typed import retype
from tests.engines.precision.conftest import make_model, modulated

KINDS = ("Conv", "ConvTranspose", "Grouped", "Gemm", "GemmT", "MatMul")


def _product(kind: str, weight_of: np.random.Generator, scale: float):
    """A typed graph y = product(x), x of 16 channels, and the shape of x."""

    def weight(*shape: int) -> np.ndarray:
        return (scale * weight_of.normal(size=shape)).astype(np.float32)

    bias = weight(8)
    image = (2, 16, 6, 6)
    operator, attributes, weights, shape = {
        "Conv": ("Conv", {"pads": [1] * 4}, [weight(8, 16, 3, 3), bias], image),
        "ConvTranspose": ("ConvTranspose", {"strides": [2, 2]}, [weight(16, 8, 3, 3), bias], image),
        "Grouped": ("Conv", {"group": 16}, [weight(16, 1, 4, 4)], image),
        "Gemm": ("Gemm", {}, [weight(16, 8), bias], (2, 16)),
        "GemmT": ("Gemm", {"transB": 1}, [weight(8, 16), bias], (2, 16)),
        "MatMul": ("MatMul", {}, [weight(16, 8)], (2, 5, 16)),
    }[kind]
    names = ["w", "b"][: len(weights)]
    node = helper.make_node(operator, ["x", *names], ["y"], name="product", **attributes)
    model = make_model([node], {"x": ["batch", *shape[1:]]}, ["y"], dict(zip(names, weights, strict=True)))
    retype(model, "fp16")
    return model, shape


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-2, 1.0, 30.0]), aligned=st.booleans())
def test_no_result_is_beyond_the_bound_and_an_aligned_one_reaches_it(
    kind: str, seed: int, scale: float, aligned: bool
) -> None:
    source = np.random.default_rng(seed)
    model, shape = _product(kind, source, scale)
    (found,) = products(model)
    assert found.name == "product"
    x = source.uniform(-2, 2, shape).astype(np.float32)
    if aligned and kind == "GemmT":
        weight = next(v for v in model.graph.initializers.values() if v.name == "w.fp16").const_value
        assert weight is not None
        array = weight.numpy().astype(np.float32)
        x[:] = 2 * np.sign(array[np.abs(array).sum(axis=1).argmax()])
    emulated = Emulated(model, watch=True, threads=1)
    largest = float(np.abs(emulated.run({"x": x})["y"]).max())
    bound = found.gain * float(np.abs(x).max()) + found.bias
    assert largest <= bound * (1 + 2e-3)
    if aligned and kind == "GemmT":
        assert largest >= (bound - 2 * found.bias) * (1 - 2e-3)
    assert found.takes in emulated.peaks
    margin, name = least_margin([found], emulated.peaks)
    assert name == "product" and margin == pytest.approx(LIMIT / bound, rel=2e-3)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 1.0, 1e3]), up=st.booleans())
def test_a_stylegan2_convolution_gains_the_root_of_its_fan_in_at_most(seed: int, scale: float, up: bool) -> None:
    """Whatever its weights are, also with one channel that dwarfs the others."""
    source = np.random.default_rng(seed)
    weight = scale * source.normal(size=(24, 24, 3, 3))
    weight[:, 5] *= 100
    model = modulated(weight.astype(np.float32), up=up)
    retype(model, "fp16")
    (found,) = products(model)
    assert found.gain <= np.sqrt(24 * 9) * (1 + 1e-3)


def test_only_fp16_products_with_weights_count() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="constant"),
        helper.make_node("Reshape", ["a", "shape"], ["moved"], name="move"),
        helper.make_node("MatMul", ["moved", "w"], ["b"], name="after"),
        helper.make_node("MatMul", ["b", "x"], ["y"], name="computed"),
    ]
    weights = {"w": np.eye(4, dtype=np.float32), "shape": np.array([-1, 4, 4], np.int64)}

    def model():
        return make_model(nodes, {"x": ["batch", 4, 4]}, ["y"], weights)

    retype(half := model(), "fp16")
    # What was moved since is watched where it was computed.
    assert [(one.name, one.takes, one.gain) for one in products(half)] == [
        ("constant", "x/fp16", 1.0),
        ("after", "a", 1.0),
    ]
    retype(single := model(), "fp32")
    assert products(single) == []
    assert Product("p", "v", 0.0, 0.0).margin(1.0) == np.inf
    assert least_margin([], {}) == (np.inf, "")


def test_nothing_that_enters_the_shipped_generator_could_overflow_it(shipped) -> None:
    """Every modulated convolution of the real model bears inputs of a thousand, whatever the styles."""
    model = load_source(shipped, "reconstruct")
    retype(model, "fp16")
    found = products(model)
    assert len(found) == 9 and min(one.margin(1000.0) for one in found) > 1
