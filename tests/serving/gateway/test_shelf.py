"""What is kept of callers: bounded, and forgotten in time."""

from __future__ import annotations

import asyncio

from serving.gateway.shelf import Shelf


def test_those_longest_unused_leave_first() -> None:
    shelf = Shelf[str](100, 60, lambda: 0.0)
    for name in "abc":
        shelf.put(name, name, 30)
    assert shelf.get("a") == "a"
    shelf.put("d", "d", 40)
    assert (shelf.get("a"), shelf.get("b"), shelf.get("c"), shelf.get("d")) == ("a", None, "c", "d")
    assert shelf.size == 100
    shelf.put("a", "new", 10)
    assert shelf.get("a") == "new" and shelf.size == 80
    # One that is too large by itself is not kept.
    shelf.put("e", "e", 101)
    assert shelf.get("e") is None and shelf.size <= 100


def test_the_time_counts_from_the_last_use() -> None:
    now = [0.0]
    shelf = Shelf[str](100, 60, lambda: now[0])
    shelf.put("a", "a", 1)
    shelf.put("b", "b", 1)
    now[0] = 50
    assert shelf.get("a") == "a"
    now[0] = 61
    assert shelf.get("b") is None and shelf.get("a") == "a"
    now[0] = 121
    shelf.expire()
    assert len(shelf) == 0


def test_a_tended_shelf_forgets_by_itself() -> None:
    async def main() -> None:
        now = [0.0]
        shelf = Shelf[str](100, 0.1, lambda: now[0])
        async with shelf.tended():
            shelf.put("a", "a", 1)
            now[0] = 1
            while len(shelf):
                await asyncio.sleep(0.02)
            shelf.put("b", "b", 1)
        assert len(shelf) == 0

    asyncio.run(main())
