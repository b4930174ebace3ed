"""Matching the layers of two reports."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.bundle.layers import LayerReport
from engines.inspector import Subject, compare
from tests.engines.inspector.samples import edit_report, engine_report, layer


def report(*layers) -> Subject:
    return Subject(LayerReport(graph="edit", source="graph", precision="fp16", layers=list(layers)))


def node(name: str, macs: int = 0, precision: str = "float16", fused: tuple[str, ...] = ()):
    return layer(name, "Conv", [[1]], [1], macs=macs, precision=precision, fused=fused)


def indices(comparison) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(pair.a, pair.b) for pair in comparison.pairs]


def test_names_match_and_what_only_the_second_has_stays_in_its_place() -> None:
    found = compare(report(node("a"), node("x"), node("b")), report(node("new"), node("a"), node("more"), node("b")))
    assert indices(found) == [((), (0,)), ((0,), (1,)), ((), (2,)), ((1,), ()), ((2,), (3,))]
    assert found.counts == {"same": 2, "precision": 0, "only A": 1, "only B": 2}


def test_fused_nodes_match_what_they_were_made_of() -> None:
    parts = report(node("conv", 8), node("bias"), node("act"), node("rest"))
    whole = report(node("kernel_7", 8, fused=("conv", "bias", "act")), node("rest"))
    found = compare(parts, whole)
    assert indices(found) == [((0, 1, 2), (0,)), ((3,), (1,))]
    assert indices(compare(whole, parts)) == [((0,), (0, 1, 2)), ((1,), (3,))]
    # Builders that list no nodes join their names.
    assert indices(compare(parts, report(node("conv + bias + act"), node("rest")))) == indices(found)


def test_two_kernels_of_one_node_are_one_side() -> None:
    split = report(node("reformat", fused=("conv",)), node("kernel", 8, fused=("conv",)))
    assert indices(compare(report(node("conv", 8)), split)) == [((0,), (0, 1))]


def test_a_name_that_repeats_is_matched_in_order() -> None:
    found = compare(report(node("a"), node("a"), node("")), report(node("a"), node("a"), node("a"), node("")))
    assert indices(found)[:2] == [((0,), (0,)), ((1,), (1,))]
    # Layers without a name are nobody's.
    assert found.counts == {"same": 2, "precision": 0, "only A": 1, "only B": 2}


def test_the_arithmetic_decides_a_sides_precision() -> None:
    mixed = report(node("a", 8, "float16"), node("cast", 0, "float32"))
    fused = report(node("k", 8, "float16", fused=("a", "cast")))
    assert compare(mixed, fused).counts["same"] == 1
    wide = report(node("k", 8, "float32", fused=("a", "cast")))
    found = compare(mixed, wide)
    assert found.counts["precision"] == 1
    assert [side.precision for side in found.pairs[0].sides] == ["FP16", "FP32"]


def test_a_sum_of_times_needs_all_of_them() -> None:
    timed = node("a").model_copy(update={"milliseconds": 2.0})
    also = node("b").model_copy(update={"milliseconds": 0.5})
    found = compare(report(timed, also, node("c")), report(node("x", fused=("a", "b")), node("y", fused=("c",))))
    assert [pair.sides[0].milliseconds for pair in found.pairs] == [2.5, None]


def test_a_graph_against_the_engine_made_from_it() -> None:
    graph, engine = edit_report(precision="fp32"), engine_report()
    found = compare(Subject(graph), Subject(engine))
    assert found.counts["only A"] == found.counts["only B"] == 0
    assert len(found.pairs) == len(engine.layers) < len(graph.layers)
    for pair in found.pairs:
        assert pair.sides[0].macs == pair.sides[1].macs


names = st.lists(st.tuples(st.sampled_from("abcde "), st.lists(st.sampled_from("abcdefg"), max_size=3)), max_size=8)


@given(names, names)
def test_every_layer_is_in_exactly_one_pair(a: list, b: list) -> None:
    first, second = (report(*(node(n.strip(), fused=tuple(f)) for n, f in side)) for side in (a, b))
    found = compare(first, second)
    assert sorted(i for pair in found.pairs for i in pair.a) == list(range(len(a)))
    assert sorted(i for pair in found.pairs for i in pair.b) == list(range(len(b)))
    assert sum(found.counts.values()) == len(found.pairs)
    ordered = [pair.a[0] for pair in found.pairs if pair.a]
    assert ordered == sorted(ordered)
