from __future__ import annotations

import pytest

from edgedit.batching.progress import LEAST, Estimate, Status


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fed(group: int, times: list[float]) -> Estimate:
    clock = Clock()
    estimate = Estimate(group, clock)
    # Loading the networks is no part of the throughput.
    clock.now = 100.0
    estimate.add()
    for seconds in times:
        clock.now += seconds
        estimate.add()
    return estimate


def test_there_is_no_estimate_before_it_means_something() -> None:
    assert fed(1, []).seconds is None
    assert fed(1, [2.0] * (LEAST - 1)).seconds is None
    assert fed(1, [2.0] * LEAST).seconds == 2.0
    # Times that differ as widely as these say little until there are many.
    assert fed(1, [0.1, 4.0] * LEAST).seconds is None
    assert fed(1, [0.1, 4.0] * 20 * LEAST).seconds == pytest.approx(2.05)


def test_photos_of_a_batch_come_out_together() -> None:
    estimate = fed(4, [0, 0, 0, *[8.0, 0, 0, 0] * LEAST])
    assert estimate.seconds == 2.0


def test_photos_without_a_face_count_as_they_come() -> None:
    estimate = fed(1, [0.5, 1.5] * 30)
    assert estimate.seconds == 1.0


def test_a_status_says_what_is_known() -> None:
    known = {"photos": 500, "done": 80, "failed": 2, "present": 0}
    assert str(Status(**known, seconds_left=None, photos_per_second=None)) == "82 of 500 photos, 2 failed"
    said = str(Status(**known, seconds_left=836.0, photos_per_second=0.5))
    assert said == "82 of 500 photos, 2 failed, 0.5 photos/s, about 14 min left"
    for seconds, words in ((40, "40 s"), (100, "1.7 min"), (7000, "1.9 h"), (864_000, "10 days")):
        assert f"about {words} left" in str(Status(**known, seconds_left=seconds, photos_per_second=1.0))
