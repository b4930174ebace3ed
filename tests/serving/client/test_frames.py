from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from serving.client.frames import Frames

# What becomes of an answer: it comes, the server does not hold the photo, or the connection breaks.
OUTCOMES = st.sampled_from(["answer", "answer", "answer", "forgotten", "broken"])


@given(count=st.integers(1, 30), window=st.integers(1, 8), outcomes=st.lists(OUTCOMES, max_size=60))
def test_every_frame_comes_once_and_in_order_whatever_breaks(count: int, window: int, outcomes: list[str]) -> None:
    frames = Frames(count, window)
    luck = iter(outcomes)
    under_way: deque[tuple[int, bool]] = deque()
    taken: list[int] = []
    photos = misses = 0
    while not frames.done:
        while (asked := frames.ask()) is not None:
            under_way.append(asked)
            photos += asked[1]
        assert len(under_way) == frames.waiting
        assert 1 <= len(under_way) <= window
        index, with_image = under_way[0]
        outcome = next(luck, "answer")
        if outcome == "forgotten" and not with_image:
            misses += 1
            under_way.clear()
            frames.restart(with_image=True)
        elif outcome == "broken":
            under_way.clear()
            frames.restart(with_image=False)
        else:
            under_way.popleft()
            assert frames.take() == index
            taken.append(index)
    assert taken == list(range(count))
    assert photos == misses


def test_a_server_that_has_forgotten_gets_one_photo_and_not_one_per_frame() -> None:
    frames = Frames(10, 8)
    assert frames.ask() == (0, False)
    assert frames.ask() is None
    frames.restart(with_image=True)
    assert frames.ask() == (0, True) and frames.sent_image
    assert frames.ask() is None
    assert frames.take() == 0
    assert [frames.ask() for _ in range(9)] == [*((k, False) for k in range(1, 9)), None]


def test_a_frame_that_could_not_be_sent_is_asked_for_again() -> None:
    frames = Frames(3, 2)
    frames.ask()
    frames.take()
    assert frames.ask() == (1, False)
    frames.unask()
    assert frames.ask() == (1, False)
    assert frames.ask() == (2, False)
