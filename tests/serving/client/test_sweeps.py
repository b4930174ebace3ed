"""Sweeps over a connection of the test's own, on which requests overlap, and which breaks as told."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.client import AsyncClient
from serving.client.deadline import Deadline
from serving.client.errors import NotFoundError, UnavailableError
from serving.client.handle import Handle
from serving.client.regions import Region
from serving.client.wire import Answer, Request
from tests.serving.client.conftest import CROP, ID, Served, regions

HANDLE = Handle(ID, CROP)
# Whether the server goes away, all that is under way failing with it, before the next answer.
BREAKS = st.lists(st.booleans(), max_size=60)


def strength_of(request: Request) -> float:
    assert request.edits is not None
    return json.loads(request.edits).get("smile", 0.0)


class Overlapping(Served):
    """Takes several requests at a time; one that breaks off takes all others with it and forgets the inversion."""

    def __init__(self, breaks: list[bool], failure: type[Exception] = UnavailableError, held: bool = False) -> None:
        super().__init__()
        self.breaks = iter(breaks)
        self.failure = failure
        self.held = held
        self.broken = self.together = self.most = 0

    async def infer(self, request: Request, region: Region | None, deadline: Deadline) -> Answer:
        self.inferred.append((request, region))
        self.together += 1
        self.most = max(self.most, self.together)
        breaks, before = next(self.breaks, False), self.broken
        try:
            for _ in range(5):
                await _turn()
            if breaks:
                self.broken += 1
                self.held = False
            if self.broken > before:
                raise self.failure("no")
            if request.image is not None:
                self.held = True
            elif not self.held:
                raise NotFoundError("resend image")
            return Answer(ID, np.full((16, 16, 3), round(10 * strength_of(request)) + 100, np.uint8))
        finally:
            self.together -= 1

    @property
    def photos(self) -> int:
        """How often the photo was sent."""
        return sum(request.image is not None for request, _ in self.inferred)


async def _turn() -> None:
    """Lets other tasks go on."""
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await future


async def frames(client: AsyncClient, count: int, handle: Handle = HANDLE) -> list[tuple[float, int]]:
    return [(s, int(image[0, 0, 0])) async for s, image in client.sweep(handle, "smile", -3, 3, count)]


@given(count=st.integers(1, 30), window=st.integers(1, 8), breaks=BREAKS)
def test_every_frame_comes_once_and_in_order_whatever_breaks(count: int, window: int, breaks: list[bool]) -> None:
    served = Overlapping(breaks)
    client = served.client(shared_memory=False, retries=100, concurrency=window)
    wanted = [(s, round(10 * s) + 100) for s in np.linspace(-3, 3, count).tolist()]
    assert served.run(frames(client, count)) == wanted
    assert served.most <= window and client._slots._value == window
    # Nothing is sent with the photo but the first frame, and the first after a break.
    assert served.photos <= 1 + served.broken


def test_the_first_frame_is_asked_for_alone_and_then_as_many_as_may_be() -> None:
    served = Overlapping([])
    client = served.client(shared_memory=False, retries=0, concurrency=20)

    async def main() -> None:
        sweep = client.sweep(HANDLE, "smile", -3, 3, 30)
        await anext(sweep)
        # By itself it was asked for twice: the server did not hold the photo.
        assert served.most == 1 and len(served.inferred) == 2 and served.photos == 1
        await anext(sweep)
        assert served.most == 8
        await sweep.aclose()

    served.run(main())
    assert client._slots._value == 20


def test_a_break_spends_retries_of_the_frame_that_was_waited_for_alone() -> None:
    served = Overlapping([False] * 4 + [True], held=True)
    client = served.client(shared_memory=False, retries=1, concurrency=4)
    assert len(served.run(frames(client, 12))) == 12
    assert len(served.pauses) == 1 and served.photos == 1
    with pytest.raises(UnavailableError):
        served.breaks = iter([False] * 3 + [True] * 20)
        served.run(frames(client, 12))


def test_a_frame_whose_inversion_was_dropped_is_asked_for_with_the_photo_and_spends_no_retry() -> None:
    served = Overlapping([False, False, True], NotFoundError, held=True)
    client = served.client(shared_memory=False, retries=0, concurrency=4)
    assert len(served.run(frames(client, 12))) == 12
    assert served.photos == 1 and not served.pauses


def test_a_sweep_goes_on_while_other_calls_take_the_slots() -> None:
    served = Overlapping([], held=True)
    client = served.client(shared_memory=True, retries=0, concurrency=2)

    async def main() -> list[tuple[float, int]]:
        others = [asyncio.create_task(client.edit(HANDLE, {"smile": 1.0})) for _ in range(30)]
        taken = await frames(client, 9)
        assert all((image == 110).all() for image in await asyncio.gather(*others))
        return taken

    assert served.run(main()) == [(s, round(10 * s) + 100) for s in np.linspace(-3, 3, 9).tolist()]
    assert served.most == 2 and len(regions()) == 2
    served.run(client.close())
    assert not regions()
