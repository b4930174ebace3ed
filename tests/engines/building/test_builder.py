from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import helper

from engines.building.builder import BuildOptions, Built, build_engine
from engines.bundle.engine_manifest import OptimizationProfile, Precision
from engines.contracts import TensorSpec
from engines.errors import EngineError
from engines.runtimes.backend import Backend, current_capability
from tests.engines.building.conftest import Typed, ones

pytestmark = pytest.mark.rtx

CONV = [helper.make_node("Conv", ["x", "w"], ["y"], name="convolve", pads=[1] * 4)]
KERNEL = {"w": ones(4, 4, 3, 3)}


def build(rtx: Backend, graph: Any, *targets: str, precision: Precision = "fp16", **options: Any) -> Built:
    return build_engine(rtx, graph, precision, targets or ("sm86",), BuildOptions(**options))


def refusal(rtx: Backend, graph: Any, *targets: str, **options: Any) -> str:
    with pytest.raises(EngineError) as error:
        build(rtx, graph, *targets, **options)
    message = str(error.value)
    assert "\n" not in message and "/_src/" not in message
    return message


def test_an_engine(rtx: Backend, typed: Typed) -> None:
    built = build(rtx, typed(CONV, KERNEL))
    # A plan begins with a magic number, and not with an ONNX model's.
    assert len(memoryview(built.plan)) > 1000 and bytes(memoryview(built.plan)[:4]) in (b"vtrt", b"ptrt", b"ftrt")
    assert built.proof.share == 1.0 and built.proof.source == "network" and built.proof.wide == []
    assert built.device_memory is not None and built.device_memory >= 0
    assert built.weight_bytes >= 2 * 4 * 4 * 9 and built.seconds > 0


def test_one_engine_for_several_targets(rtx: Backend, typed: Typed) -> None:
    graph = typed(CONV, KERNEL)
    one, other, both = (bytes(build(rtx, graph, *t).plan) for t in (["sm86"], ["sm120"], ["sm86", "sm120"]))
    assert one != other and both not in (one, other)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Frobnicate", ["a"], ["y"], name="odd", domain="acme"), "node odd (Frobnicate)"),
        (helper.make_node("Det", ["a"], ["y"], name="determinant"), "node determinant (Det)"),
        (helper.make_node("Det", ["a"], ["y"]), "node number 1 (Det)"),
    ],
)
def test_an_operator_that_is_not_known(rtx: Backend, typed: Typed, node: object, message: str) -> None:
    graph = typed([helper.make_node("Relu", ["x"], ["a"], name="relu"), node])
    assert f"graph g: TensorRT-RTX cannot read {message}: it does not know the operator" in refusal(rtx, graph)


def test_types_that_do_not_meet_name_the_node(rtx: Backend, typed: Typed) -> None:
    message = refusal(rtx, typed(CONV, {"w": ones(4, 4, 3, 3, dtype=np.float32)}))
    assert "node convolve (Conv)" in message and "same type" in message


def test_an_opset_that_is_too_new(rtx: Backend, typed: Typed) -> None:
    # The parser itself takes it without a word.
    assert "uses ONNX opset 99, and engines are built from at most 20" in refusal(rtx, typed(CONV, KERNEL, opset=99))


def test_files_that_are_no_graph(rtx: Backend, typed: Typed) -> None:
    graph = typed(CONV, KERNEL)
    graph.file.write_bytes(b"")
    assert "g.onnx holds no ONNX graph" in refusal(rtx, graph)
    graph.file.write_bytes(b"hello world" * 30)
    assert "g.onnx" in refusal(rtx, graph)
    graph.file.unlink()
    assert "g.onnx is not an ONNX model" in refusal(rtx, graph)


def test_a_graph_that_is_not_what_it_should_be(rtx: Backend, typed: Typed) -> None:
    graph = typed(CONV, KERNEL)
    wide = [TensorSpec(name="y", dtype="float32", shape=["batch", 4, 8, 8])]
    assert "output y is float16 (-1, 4, 8, 8) instead of float32" in refusal(rtx, replace(graph, outputs=wide))
    larger = [TensorSpec(name="x", dtype="float16", shape=["batch", 4, 9, 8])]
    assert "input x is float16 (-1, 4, 8, 8) instead of float16 (batch, 4, 9, 8)" in refusal(
        rtx, replace(graph, inputs=larger)
    )
    assert "has an output y that its contract does not name" in refusal(rtx, replace(graph, outputs=[]))


def test_a_profile_outside_the_limits(rtx: Backend, typed: Typed) -> None:
    fixed = typed(CONV, KERNEL, batch=2)
    assert "takes batch 2 only (input x), not 1:1:8: --batch-range 2:2:2" in refusal(rtx, fixed)
    assert build(rtx, fixed, profile=OptimizationProfile(min=2, opt=2, max=2)).proof.share == 1.0
    huge = OptimizationProfile(min=1, opt=1, max=3_000_000_000)
    assert "batch 1:1:3000000000 is outside the limits of graph g (input x)" in refusal(
        rtx, typed(CONV, KERNEL), profile=huge
    )


def test_memory(rtx: Backend, typed: Typed) -> None:
    # A product with two uses and a reduction between needs scratch that grows with the batch.
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Softmax", ["a"], ["b"], name="soft", axis=1),
        helper.make_node("Conv", ["b", "w"], ["c"], name="second", pads=[1] * 4),
        helper.make_node("Add", ["a", "c"], ["y"], name="add"),
    ]
    graph = typed(nodes, KERNEL)
    needs = [build(rtx, graph, profile=OptimizationProfile(min=1, opt=1, max=n)).device_memory for n in (1, 4096)]
    assert needs[0] is not None and needs[1] is not None and needs[1] > max(needs[0], 2**20)
    message = refusal(rtx, graph, profile=OptimizationProfile(min=1, opt=1, max=4096), memory_budget=1000)
    assert (
        "for activations at batch 4096, more than the memory budget of 0.0 MB; raise it, or lower --batch-range"
        in message
    )
    assert build(rtx, graph, memory_budget=2**30).proof.share == 1.0


def test_what_rtx_does_not_offer(rtx: Backend, typed: Typed) -> None:
    graph = typed(CONV, KERNEL)
    assert "no version-compatible engines" in refusal(rtx, graph, version_compatible=True)
    assert "name every target: --target sm86,sm89" in refusal(rtx, graph, hardware="ampere-plus")


@pytest.mark.skipif(current_capability() is not None, reason="a GPU is here")
def test_refit_without_a_gpu(rtx: Backend, typed: Typed) -> None:
    assert "refit needs an NVIDIA GPU when building" in refusal(rtx, typed(CONV, KERNEL), refit=True)


def test_what_the_builder_says_is_handed_on(rtx: Backend, typed: Typed) -> None:
    product = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    graph = typed(product, {"w": ones(8, 8, dtype=np.float32)}, dtype="float32")
    message = refusal(rtx, graph, "sm75", precision="fp32")
    assert "graph g could not be built for sm75" in message and "product" in message and "Turing" in message
