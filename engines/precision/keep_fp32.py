"""Finds the FP16 nodes that a failed accuracy gate is due to."""

from __future__ import annotations

from collections.abc import Callable, Sequence


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
