from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.precision.keep_fp32 import by_bisection, by_noise, offenders


@given(count=st.integers(1, 200), data=st.data())
def test_exactly_the_offenders_are_found(count, data):
    names = [f"n{i}" for i in range(count)]
    guilty = data.draw(st.sets(st.sampled_from(names), max_size=4))
    asked = []

    def passes(wide: frozenset[str]) -> bool:
        asked.append(wide)
        return guilty <= wide

    assert offenders(names, passes) == guilty
    assert len(asked) <= 3 + 3 * len(guilty) * (count.bit_length() + 1)


def test_nothing_helps():
    assert offenders(["a", "b"], lambda wide: False) is None
    assert offenders([], lambda wide: False) is None


@given(needed=st.integers(1, 30))
def test_any_of_enough_nodes_will_do(needed):
    """Rounding errors add up: no single node is guilty, and some number of them must go."""
    names = [f"n{i}" for i in range(40)]
    found = offenders(names, lambda wide: len(wide) >= needed)
    assert found is not None and len(found) >= needed


@given(count=st.integers(2, 60), data=st.data())
def test_bisection_goes_on_where_more_is_asked(count, data):
    """Photos that join the probes make a second set of nodes necessary: the first is kept and the second added."""
    names = [f"n{i}" for i in range(count)]
    first, second = (data.draw(st.sets(st.sampled_from(names), min_size=1, max_size=3)) for _ in range(2))
    needed = set(first)
    sets = by_bisection(names, lambda wide: needed <= wide)
    assert next(sets) == first
    needed |= second
    if second <= first:
        assert next(sets, None) is None  # nothing else can be due
    else:
        assert next(sets) == first | second


@given(
    noise=st.lists(st.floats(0.01, 10.0), min_size=1, max_size=40),
    work=st.lists(st.integers(1, 1000), min_size=40, max_size=40),
    limit=st.floats(0.0, 1.0),
)
def test_the_noisiest_products_for_their_work_go_first(noise, work, limit):
    names = [f"n{i}" for i in range(len(noise))]
    power = dict(zip(names, noise, strict=True))
    products = dict(zip(names, work, strict=False))
    allowed = limit * sum(noise)
    asked = []

    def left(wide: frozenset[str]) -> float:
        return sum(value for name, value in power.items() if name not in wide)

    def passes(wide: frozenset[str]) -> bool:
        asked.append(wide)
        return left(wide) <= allowed

    sets = by_noise(products, left, passes)
    found = next(sets)
    assert left(found) <= allowed and len(asked) <= 7
    order = sorted(names, key=lambda name: -power[name] / products[name])
    assert found == set(order[: len(found)])
    # One fewer would not do, but one is widened at the least: the whole graph has failed already.
    assert len(found) == 1 or left(frozenset(order[: len(found) - 1])) > allowed
    # Where other photos fail, more go.
    assert all(len(more) > len(found) for more in sets)


def test_no_number_of_products_is_enough():
    assert list(by_noise({"a": 1, "b": 2}, lambda wide: 1.0, lambda wide: False)) == []
