"""Finds the nodes that a failed accuracy gate is due to, which are then kept one step wider.

In FP16 it is mostly one node or two that leave its range, which bisection finds among a thousand. In 8 bits every
product adds a little noise, and the question is not which to keep wide but which first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence


def offenders(
    candidates: Sequence[str],
    passes: Callable[[frozenset[str]], bool],
    *,
    progress: Callable[[str], None] = lambda message: None,
) -> frozenset[str] | None:
    """A small set of nodes that the gate needs in FP32, found by bisection.

    With k offenders among n nodes it asks about k log2(n) times.

    Args:
        candidates: names of the nodes that may be widened, in the graph's order, so that neighbours share a half.
        passes: whether the gate holds with these nodes in FP32.
        progress: called with one line before each question.

    Returns:
        The set, empty if nothing needs widening; None if the gate fails even with all of them in FP32.
    """

    def ask(wide: frozenset[str]) -> bool:
        progress(f"trying with {len(wide)} more nodes in FP32")
        return passes(wide)

    def search(among: Sequence[str], given: frozenset[str]) -> frozenset[str]:
        """The part of `among` that is needed on top of `given`, where all of it is known to be enough."""
        if len(among) == 1:
            return frozenset(among)
        left, right = among[: len(among) // 2], among[len(among) // 2 :]
        if ask(given | frozenset(left)):
            return search(left, given)
        if ask(given | frozenset(right)):
            return search(right, given)
        from_left = search(left, given | frozenset(right))
        return from_left | search(right, given | from_left)

    if ask(frozenset()):
        return frozenset()
    if not candidates or not ask(frozenset(candidates)):
        return None
    return search(list(candidates), frozenset())


def by_bisection(
    candidates: Sequence[str],
    passes: Callable[[frozenset[str]], bool],
    *,
    progress: Callable[[str], None] = lambda message: None,
) -> Iterator[frozenset[str]]:
    """Sets of nodes with which the gate holds, each with more than the last, for as long as more are asked for.

    Args:
        candidates, passes, progress: as `offenders`; what `passes` looks at may grow stricter between two sets.
    """
    wide: frozenset[str] = frozenset()

    def with_more(more: frozenset[str]) -> bool:
        return passes(wide | more)

    while more := offenders([name for name in candidates if name not in wide], with_more, progress=progress):
        wide |= more
        yield wide


def by_noise(
    products: Mapping[str, int],
    noise: Callable[[frozenset[str]], float],
    passes: Callable[[frozenset[str]], bool],
    *,
    progress: Callable[[str], None] = lambda message: None,
) -> Iterator[frozenset[str]]:
    """As `by_bisection`, of products in 8 bits: those first that bring most noise for the work that 8 bits save.

    Args:
        products: multiply-accumulates by name.
        noise: the error of the graph's outputs with these products widened, as a power: powers of products add up.
    """
    everything = frozenset(products)
    cost = {}
    for name, work in products.items():
        cost[name] = noise(everything - {name}) / work
        if len(cost) % 10 == 0 or len(cost) == len(products):
            progress(f"{len(cost)} of {len(products)} products measured alone in 8 bits")
    order = sorted(cost, key=lambda name: -cost[name])

    def enough(count: int) -> bool:
        progress(f"trying with {count} of {len(order)} products in FP16")
        return passes(frozenset(order[:count]))

    count = 0
    while (count := bisect_left(range(len(order) + 1), True, lo=count + 1, key=enough)) <= len(order):
        yield frozenset(order[:count])
