from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from serving.client.frames import Frames

# Whether the stream breaks before the next answer.
BREAKS = st.lists(st.booleans(), max_size=60)


@given(count=st.integers(1, 30), window=st.integers(1, 8), breaks=BREAKS)
def test_every_frame_comes_once_and_in_order_whatever_breaks(count: int, window: int, breaks: list[bool]) -> None:
    frames = Frames(count, window)
    luck = iter(breaks)
    under_way: deque[int] = deque()
    taken: list[int] = []
    while not frames.done:
        while (asked := frames.ask()) is not None:
            under_way.append(asked)
        assert len(under_way) == frames.waiting
        assert 1 <= len(under_way) <= window
        if next(luck, False):
            under_way.clear()
            frames.restart()
        else:
            assert frames.next == under_way.popleft()
            taken.append(frames.take())
    assert taken == list(range(count))


def test_the_first_frame_goes_alone_and_so_does_the_first_after_a_break() -> None:
    frames = Frames(10, 4)
    assert [frames.ask(), frames.ask()] == [0, None]
    frames.take()
    assert [frames.ask() for _ in range(5)] == [1, 2, 3, 4, None]
    frames.take()
    frames.restart()
    assert [frames.ask(), frames.ask()] == [2, None]


def test_a_frame_that_could_not_be_sent_is_asked_for_again() -> None:
    frames = Frames(3, 2)
    frames.ask()
    frames.take()
    assert frames.ask() == 1
    frames.unask()
    assert [frames.ask(), frames.ask()] == [1, 2]
