from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.precision.keep_fp32 import offenders


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
