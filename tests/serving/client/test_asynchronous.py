"""The calls without their I/O: a connection of the test's own answers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.client import AsyncClient
from serving.client.errors import (
    DeadlineError,
    NotFoundError,
    OverloadedError,
    RequestError,
    ServingError,
    StaleRegionError,
    UnavailableError,
)
from serving.client.handle import Handle, as_handle
from tests.serving.client.conftest import CROP, ID, IMAGE, Served, regions


@pytest.fixture(params=[False, True], ids=["inline", "shared"])
def client_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., AsyncClient]]:
    made: list[AsyncClient] = []

    def make(served: Served, retries: int = 2) -> AsyncClient:
        made.append(served.client(shared_memory=request.param, retries=retries))
        return made[-1]

    yield make
    for client in made:
        Served().run(client.close())
    assert not regions()


def edit(client: AsyncClient, handle: Handle) -> Awaitable[np.ndarray]:
    return client.edit(handle, {"smile": 1.0})


OUTCOMES = st.lists(
    st.sampled_from(
        [None, UnavailableError, OverloadedError, NotFoundError, RequestError, DeadlineError, ServingError]
    ),
    max_size=8,
)


@given(outcomes=OUTCOMES, retries=st.integers(0, 4), shared=st.booleans())
def test_any_run_of_failures_ends_with_its_slot_free_and_its_attempts_counted(
    outcomes: list[type[ServingError] | None], retries: int, shared: bool
) -> None:
    served = Served(outcomes)
    client = served.client(shared_memory=shared, retries=retries)
    try:
        try:
            result = served.run(edit(client, Handle(ID, CROP)))
        except ServingError as error:
            result = error
        assert client._slots._value == 1
        # One attempt is at most two requests: without the photo, and then with it.
        attempts = [request for request, _ in served.inferred if request.image is None]
        assert len(attempts) <= retries + 1 and len(served.pauses) == len(attempts) - 1
        before = [outcome for outcome in outcomes[: len(served.inferred)]]
        for (request, _), outcome in zip(served.inferred[1:], before, strict=False):
            # The photo goes along after a NOT_FOUND, and never before one.
            assert (request.image is not None) == (outcome is NotFoundError)
        if isinstance(result, np.ndarray):
            assert np.array_equal(result, IMAGE)
        else:
            assert type(result) is (ServingError if before[-1] is NotFoundError else before[-1])
            if isinstance(result, UnavailableError | OverloadedError):
                assert len(attempts) == retries + 1
    finally:
        served.run(client.close())
    assert not served.registered and not regions()


def test_a_handle_without_its_photo_cannot_be_sent_again(client_of: Callable[..., AsyncClient]) -> None:
    served = Served([NotFoundError])
    with pytest.raises(NotFoundError, match=f"no longer holds inversion {ID}; invert the photo again"):
        served.run(edit(client_of(served), as_handle(ID)))
    assert len(served.inferred) == 1


def test_a_server_without_the_model_is_said_to_be_one(client_of: Callable[..., AsyncClient]) -> None:
    served = Served([NotFoundError, NotFoundError])
    with pytest.raises(ServingError, match="does not serve edit_session") as caught:
        served.run(edit(client_of(served), Handle(ID, CROP)))
    assert not isinstance(caught.value, NotFoundError)


def test_the_model_is_asked_for_its_profile_once_and_again_after_it_was_away(
    client_of: Callable[..., AsyncClient],
) -> None:
    served = Served()
    client = client_of(served)
    for _ in range(3):
        served.run(edit(client, Handle(ID, CROP)))
    assert served.described == 1
    served.outcomes = [UnavailableError]
    served.run(edit(client, Handle(ID, CROP)))
    served.run(edit(client, Handle(ID, CROP)))
    assert served.described == 2


def test_a_photo_is_inverted_and_edited_in_two_requests() -> None:
    served = Served()
    client = served.client(shared_memory=False, retries=0)
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    assert np.array_equal(served.run(client.edit_photo(photo, {"smile": 1.0}, aligned=True)), IMAGE)
    # An aligned face needs no reconstruction to paste over.
    assert [request.edits for request, _ in served.inferred] == ['{"smile": 1.0}']
    assert served.inferred[0][0].image is not None


def test_a_grey_photo_is_answered_in_grey() -> None:
    served = Served(image=np.full((16, 16, 3), (90, 40, 10), np.uint8))
    client = served.client(shared_memory=False, retries=0)
    photo = np.full((40, 40, 3), 150, np.uint8)
    answer = served.run(client.edit_photo(photo, {"smile": 1.0}, aligned=True))
    assert (answer == round(0.299 * 90 + 0.587 * 40 + 0.114 * 10)).all()
    # A dark one is sent in the light that the model was trained on, and comes back in its own.
    answer = served.run(client.edit_photo(photo // 5, {"smile": 1.0}, aligned=True))
    sent = served.inferred[1][0].image
    assert sent is not None and (sent == 192).all()
    assert (answer == round((0.299 * 90 + 0.587 * 40 + 0.114 * 10) * 30 / 192)).all()


def test_edits_by_handle_are_in_the_photos_light_and_colours() -> None:
    served = Served(image=np.full((16, 16, 3), (90, 40, 10), np.uint8))
    client = served.client(shared_memory=False, retries=0, concurrency=4)
    photo = np.full((40, 40, 3), 150, np.uint8)
    luminance = 0.299 * 90 + 0.587 * 40 + 0.114 * 10

    async def main(photo: np.ndarray) -> list[np.ndarray]:
        handle = await client.invert(photo, aligned=True)
        swept = [image async for _, image in client.sweep(handle, "smile", -1, 1, 3)]
        unknown = await client.edit(handle.id, smile=1)  # nothing but its id
        return [await client.edit(handle, smile=1), await client.reconstruct(handle), *swept, unknown]

    for image, level in ((photo, round(luminance)), (photo // 5, round(luminance * 30 / 192))):
        *known, unknown = served.run(main(image))
        assert len(known) == 5 and all((one == level).all() for one in known)
        assert np.array_equal(unknown, served.image)
    # In colour and ordinary light, nothing is done to it.
    colours = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    assert all(np.array_equal(one, served.image) for one in served.run(main(colours)))


def test_regions_are_reused_and_never_after_a_failure() -> None:
    served = Served()
    client = served.client(shared_memory=True, retries=0)
    handle = Handle(ID, CROP)
    for outcome in (None, RequestError, None):
        served.outcomes = [outcome]
        try:
            served.run(edit(client, handle))
        except RequestError:
            pass
    used = [region.name for _, region in served.inferred if region is not None]
    assert len(set(used)) == 1 == len(regions())
    served.outcomes = [DeadlineError]
    # The server may still be writing.
    served.in_use = set(used)
    with pytest.raises(DeadlineError):
        served.run(edit(client, handle))
    assert not regions() and served.registered == set(used)
    served.run(edit(client, handle))
    assert served.inferred[-1][1].name not in used
    assert served.registered == {*used, served.inferred[-1][1].name}
    served.in_use = set()
    served.run(client.close())
    assert not served.registered and not regions()


def test_closing_tries_memory_in_use_again_and_then_gives_up() -> None:
    served = Served()
    client = served.client(shared_memory=True, retries=0)
    served.run(edit(client, Handle(ID, CROP)))
    served.in_use = set(served.registered)
    served.run(client.close())
    assert len(served.pauses) == 4 and sum(served.pauses) < 2
    assert not regions()
    with pytest.raises(ServingError, match="this client is closed"):
        served.run(edit(client, Handle(ID, CROP)))


def test_a_restarted_server_is_told_of_new_memory_without_a_retry_being_spent() -> None:
    served = Served()
    client = served.client(shared_memory=True, retries=0)
    served.run(edit(client, Handle(ID, CROP)))
    served.registered.clear()
    served.outcomes = [StaleRegionError]
    with pytest.raises(AssertionError):
        # The old region is not registered any more: Served insists on that.
        served.run(edit(client, Handle(ID, CROP)))
    client._note_away()
    assert np.array_equal(served.run(edit(client, Handle(ID, CROP))), IMAGE)
    served.outcomes = [StaleRegionError]
    assert np.array_equal(served.run(edit(client, Handle(ID, CROP))), IMAGE)
    served.run(client.close())


def test_a_server_that_takes_no_shared_memory_is_one_line() -> None:
    served = Served()
    served.refuse_registration = RequestError("restricted")
    client = served.client(shared_memory=True, retries=2)
    with pytest.raises(RequestError, match=r"does not take shared memory .*restricted.*pass shared_memory=False"):
        served.run(edit(client, Handle(ID, CROP)))
    assert client._slots._value == 1 and not regions() and not served.pauses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "http://127.0.0.1:8000"}, "is not a server's host:port"),
        ({"url": "localhost"}, "is not a server's host:port"),
        ({"timeout": 0}, "timeout must be seconds above 0"),
        ({"timeout": float("nan")}, "timeout must be seconds above 0"),
        ({"timeout": "5"}, "timeout must be seconds above 0"),
        ({"timeout": np.float32(-1)}, "timeout must be seconds above 0"),
        ({"retries": -1}, "retries must be 0 or more"),
        ({"retries": np.int8(-1)}, "retries must be 0 or more"),
        ({"retries": True}, "retries must be 0 or more"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        AsyncClient(**arguments)


def test_numbers_may_be_of_numpy() -> None:
    client = AsyncClient(timeout=np.float32(1), retries=np.int64(1))  # type: ignore[arg-type]
    assert client._retries == 1 and client._deadline(None).seconds == 1
    assert 29 < client._deadline(np.int16(30)).left() <= 30  # type: ignore[arg-type]


def test_what_is_no_handle() -> None:
    for wrong in ("", None, 5, b"ab"):
        with pytest.raises(RequestError, match="a handle is what `invert` gives"):
            as_handle(wrong)  # type: ignore[arg-type]
