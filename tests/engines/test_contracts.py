from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines.contracts import PARTS, PIPELINES, TensorSpec, check_feeds, graph_contract, mismatch, style_width
from engines.family import CARS_512, FACES_1024, ModelFamily


def test_contracts_of_the_faces_family() -> None:
    inputs, outputs = graph_contract(FACES_1024, "edit")
    assert [str(spec) for spec in inputs] == [
        "float32 (batch, 18, 512)",
        "float32 (batch, 512, 64, 64)",
        "float32 (batch, 18, 512)",
        "float32 (batch, 512, 64, 64)",
        "float32 (batch, 18, 512)",
        "float32 (batch, 9088)",
    ]
    assert [str(spec) for spec in outputs] == ["uint8 (batch, 1024, 1024, 3)"]
    assert style_width(FACES_1024) == 9088


def test_cars_are_cut_at_the_door_only() -> None:
    assert graph_contract(CARS_512, "invert")[0][0].shape == ["batch", 384, 512, 3]
    assert graph_contract(CARS_512, "encoder")[0][0].shape == ["batch", 3, 192, 256]
    assert graph_contract(CARS_512, "generator")[1][0].shape == ["batch", 3, 512, 512]


def test_what_one_graph_gives_is_what_the_next_takes(tiny_family: ModelFamily) -> None:
    for family in (tiny_family, replace(tiny_family, rgb_skip=True), FACES_1024):
        given = {spec.name: spec for name in ("encoder", "features") for spec in graph_contract(family, name)[1]}
        taken = {spec.name: spec for name in ("editor", "generator") for spec in graph_contract(family, name)[0]}
        for name in ("feature", "generator_feature", *(["rgb"] if family.rgb_skip else [])):
            assert given[name] == taken[name]
        assert graph_contract(family, "invert")[1] == graph_contract(family, "edit")[0][:4]


def test_every_graph_has_a_contract_and_others_have_none(tiny_family: ModelFamily) -> None:
    for name in (*PARTS, *PIPELINES):
        inputs, outputs = graph_contract(tiny_family, name)
        assert all(spec.shape[0] == "batch" for spec in inputs + outputs)
    with pytest.raises(KeyError):
        graph_contract(tiny_family, "discriminator")


def test_mismatch_ignores_order_and_the_names_of_dynamic_dimensions() -> None:
    a = TensorSpec(name="a", dtype="float32", shape=["batch", 3])
    b = TensorSpec(name="b", dtype="uint8", shape=[2])
    assert mismatch([a, b], [b, a.model_copy(update={"shape": ["n", 3]})]) is None
    assert mismatch([a], []) == "a is missing"
    assert mismatch([a], [a, b]) == "b is not expected"
    assert (
        mismatch([a], [a.model_copy(update={"shape": [1, 3]})]) == "a is float32 (1, 3) instead of float32 (batch, 3)"
    )
    assert mismatch([a], [a.model_copy(update={"dtype": "float16"})]) is not None
    assert mismatch([a], [a.model_copy(update={"shape": ["n"]})]) is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": None}, "graph g needs input b; it takes a float32 (batch, 3), b float32 (batch, 2)"),
        ({"c": np.zeros(1)}, "graph g has no input c"),
        ({"a": [1, 2, 3]}, "input a must be a NumPy array, got list"),
        ({"a": np.zeros((4, 3))}, "input a is float64 (4, 3); it takes float32 (batch, 3), batch = 4"),
        ({"a": np.zeros((4, 5), np.float32)}, "input a is float32 (4, 5); it takes float32 (batch, 3), batch = 4"),
        ({"a": np.zeros(3, np.float32)}, "input a is float32 (3); it takes float32 (batch, 3)"),
        ({"b": np.zeros((5, 2), np.float32)}, "input b is float32 (5, 2); it takes float32 (batch, 2), batch = 4"),
        ({"a": np.zeros((0, 3), np.float32), "b": np.zeros((0, 2), np.float32)}, "input a is float32 (0, 3)"),
    ],
)
def test_wrong_feeds_get_one_line(change: dict, message: str) -> None:
    specs = [TensorSpec(name=n, dtype="float32", shape=["batch", d]) for n, d in (("a", 3), ("b", 2))]
    feeds = {"a": np.zeros((4, 3), np.float32), "b": np.zeros((4, 2), np.float32)}
    check_feeds("g", specs, feeds)
    feeds = {name: value for name, value in (feeds | change).items() if value is not None}
    with pytest.raises(ValueError) as caught:
        check_feeds("g", specs, feeds)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
