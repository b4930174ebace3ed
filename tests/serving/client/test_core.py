"""The calls without their I/O: a server of the test's own answers what they yield, at times of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.client.core import Core, as_handle
from serving.client.effects import Compute, Describe, Flow, Infer, Pause, Register, Slot, Unregister
from serving.client.errors import (
    DeadlineError,
    NotFoundError,
    OverloadedError,
    RequestError,
    ServingError,
    StaleRegionError,
    UnavailableError,
)
from serving.client.handle import Handle
from serving.client.wire import Answer
from tests.serving.client.conftest import regions

URL = "127.0.0.1:8001"
ID = "ab" * 16
CROP = np.full((16, 16, 3), 5, np.uint8)
IMAGE = np.full((16, 16, 3), 9, np.uint8)
CONFIG = {
    "input": [{"name": "image", "dims": [16, 16, 3]}],
    "parameters": {"directions": {"string_value": '{"smile": {"min_strength": -3, "max_strength": 3}}'}},
}


class Served:
    """Does what a flow yields; inferences end as `outcomes` say, and well when there are no more of them."""

    def __init__(self, outcomes: list[type[ServingError] | None] | None = None, free: int = 1) -> None:
        self.outcomes = list(outcomes or [])
        self.free = free
        self.inferred: list[Infer] = []
        self.pauses: list[float] = []
        self.registered: set[str] = set()
        self.described = 0
        self.refuse_registration: Exception | None = None
        self.in_use: set[str] = set()

    def release(self) -> None:
        self.free += 1

    def run(self, flow: Flow[Any]) -> Any:
        step: Any = flow.send
        value: Any = None
        while True:
            try:
                effect = step(value)
            except StopIteration as done:
                return done.value
            try:
                step, value = flow.send, self._do(effect)
            except Exception as error:
                step, value = flow.throw, error

    def _do(self, effect: Any) -> Any:
        match effect:
            case Slot():
                assert self.free > 0
                self.free -= 1
                return True
            case Infer(request, region, _):
                self.inferred.append(effect)
                assert region is None or region.name in self.registered
                if self.outcomes and (kind := self.outcomes.pop(0)) is not None:
                    raise kind("no")
                return Answer(ID, IMAGE if request.edits is not None else np.empty((0, 0, 3), np.uint8))
            case Pause(seconds):
                self.pauses.append(seconds)
            case Compute(function):
                return function()
            case Describe():
                self.described += 1
                return CONFIG
            case Register(region, _):
                if self.refuse_registration is not None:
                    raise self.refuse_registration
                self.registered.add(region.name)
            case Unregister(name, _):
                if name in self.in_use:
                    raise RequestError("currently in use")
                self.registered.discard(name)
        return None


@pytest.fixture(params=[False, True], ids=["inline", "shared"])
def core_of(request: pytest.FixtureRequest) -> Any:
    made: list[Core] = []

    def make(served: Served, retries: int = 2) -> Core:
        made.append(Core(URL, served, shared_memory=request.param, timeout=30.0, retries=retries))
        return made[-1]

    yield make
    for core in made:
        Served().run(core.close())
    assert not regions()


def edit(core: Core, handle: Handle) -> Flow[np.ndarray]:
    return core.edit(handle, {"smile": 1.0}, False, core.deadline())


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
    core = Core(URL, served, shared_memory=shared, timeout=30.0, retries=retries)
    try:
        try:
            result = served.run(edit(core, Handle(ID, CROP)))
        except ServingError as error:
            result = error
        assert served.free == 1
        # One attempt is at most two requests: without the photo, and then with it.
        attempts = [infer for infer in served.inferred if infer.request.image is None]
        assert len(attempts) <= retries + 1 and len(served.pauses) == len(attempts) - 1
        before = [outcome for outcome in outcomes[: len(served.inferred)]]
        for infer, outcome in zip(served.inferred[1:], before, strict=False):
            # The photo goes along after a NOT_FOUND, and never before one.
            assert (infer.request.image is not None) == (outcome is NotFoundError)
        if isinstance(result, np.ndarray):
            assert np.array_equal(result, IMAGE)
        else:
            assert type(result) is (ServingError if before[-1] is NotFoundError else before[-1])
            if isinstance(result, UnavailableError | OverloadedError):
                assert len(attempts) == retries + 1
    finally:
        served.run(core.close())
    assert not served.registered and not regions()


def test_a_handle_without_its_photo_cannot_be_sent_again(core_of: Callable[..., Core]) -> None:
    served = Served([NotFoundError])
    with pytest.raises(NotFoundError, match=f"no longer holds inversion {ID}; invert the photo again"):
        served.run(edit(core_of(served), as_handle(ID)))
    assert len(served.inferred) == 1


def test_a_server_without_the_model_is_said_to_be_one(core_of: Callable[..., Core]) -> None:
    served = Served([NotFoundError, NotFoundError])
    with pytest.raises(ServingError, match="does not serve edit_session") as caught:
        served.run(edit(core_of(served), Handle(ID, CROP)))
    assert not isinstance(caught.value, NotFoundError)


def test_the_model_is_asked_for_its_profile_once_and_again_after_it_was_away(core_of: Callable[..., Core]) -> None:
    served = Served()
    core = core_of(served)
    for _ in range(3):
        served.run(edit(core, Handle(ID, CROP)))
    assert served.described == 1
    served.outcomes = [UnavailableError]
    served.run(edit(core, Handle(ID, CROP)))
    served.run(edit(core, Handle(ID, CROP)))
    assert served.described == 2


def test_a_photo_is_inverted_and_edited_in_two_requests() -> None:
    served = Served()
    core = Core(URL, served, shared_memory=False, timeout=30.0, retries=0)
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    flow = core.edit_photo(photo, {"smile": 1.0}, True, None, False, "auto", core.deadline())
    assert np.array_equal(served.run(flow), IMAGE)
    # An aligned face needs no reconstruction to paste over.
    assert [infer.request.edits for infer in served.inferred] == ['{"smile": 1.0}']
    assert served.inferred[0].request.image is not None


def test_a_grey_photo_is_answered_in_grey() -> None:
    class Coloured(Served):
        def _do(self, effect: Any) -> Any:
            done = super()._do(effect)
            return Answer(ID, np.full((16, 16, 3), (90, 40, 10), np.uint8)) if isinstance(effect, Infer) else done

    served = Coloured()
    core = Core(URL, served, shared_memory=False, timeout=30.0, retries=0)
    photo = np.full((40, 40, 3), 150, np.uint8)
    answer = served.run(core.edit_photo(photo, {"smile": 1.0}, True, None, False, "auto", core.deadline()))
    assert (answer == round(0.299 * 90 + 0.587 * 40 + 0.114 * 10)).all()
    # A dark one is sent in the light that the model was trained on, and comes back in its own.
    answer = served.run(core.edit_photo(photo // 5, {"smile": 1.0}, True, None, False, "auto", core.deadline()))
    sent = served.inferred[1].request.image
    assert sent is not None and (sent == 192).all()
    assert (answer == round((0.299 * 90 + 0.587 * 40 + 0.114 * 10) * 30 / 192)).all()


def test_regions_are_reused_and_never_after_a_failure() -> None:
    served = Served()
    core = Core(URL, served, shared_memory=True, timeout=30.0, retries=0)
    handle = Handle(ID, CROP)
    for outcome in (None, RequestError, None):
        served.outcomes = [outcome]
        try:
            served.run(edit(core, handle))
        except RequestError:
            pass
    used = [infer.region.name for infer in served.inferred]
    assert len(set(used)) == 1 == len(regions())
    served.outcomes = [DeadlineError]
    # The server may still be writing.
    served.in_use = set(used)
    with pytest.raises(DeadlineError):
        served.run(edit(core, handle))
    assert not regions() and served.registered == set(used)
    served.run(edit(core, handle))
    assert served.inferred[-1].region.name not in used
    assert served.registered == {*used, served.inferred[-1].region.name}
    served.in_use = set()
    served.run(core.close())
    assert not served.registered and not regions()


def test_closing_tries_memory_in_use_again_and_then_gives_up() -> None:
    served = Served()
    core = Core(URL, served, shared_memory=True, timeout=30.0, retries=0)
    served.run(edit(core, Handle(ID, CROP)))
    served.in_use = set(served.registered)
    served.run(core.close())
    assert len(served.pauses) == 4 and sum(served.pauses) < 2
    assert not regions()
    with pytest.raises(ServingError, match="this client is closed"):
        served.run(edit(core, Handle(ID, CROP)))


def test_a_restarted_server_is_told_of_new_memory_without_a_retry_being_spent() -> None:
    served = Served()
    core = Core(URL, served, shared_memory=True, timeout=30.0, retries=0)
    served.run(edit(core, Handle(ID, CROP)))
    served.registered.clear()
    served.outcomes = [StaleRegionError]
    with pytest.raises(AssertionError):
        # The old region is not registered any more: Served insists on that.
        served.run(edit(core, Handle(ID, CROP)))
    core.note_away()
    assert np.array_equal(served.run(edit(core, Handle(ID, CROP))), IMAGE)
    served.outcomes = [StaleRegionError]
    assert np.array_equal(served.run(edit(core, Handle(ID, CROP))), IMAGE)
    served.run(core.close())


def test_a_server_that_takes_no_shared_memory_is_one_line() -> None:
    served = Served()
    served.refuse_registration = RequestError("restricted")
    core = Core(URL, served, shared_memory=True, timeout=30.0, retries=2)
    with pytest.raises(RequestError, match=r"does not take shared memory .*restricted.*pass shared_memory=False"):
        served.run(edit(core, Handle(ID, CROP)))
    assert served.free == 1 and not regions() and not served.pauses


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
    given: dict[str, Any] = {"url": URL, "shared_memory": False, "timeout": 1.0, "retries": 1}
    with pytest.raises(RequestError, match=message):
        Core(slots=Served(), **(given | arguments))


def test_numbers_may_be_of_numpy() -> None:
    core = Core(URL, Served(), shared_memory=False, timeout=np.float32(30), retries=np.int64(1))
    assert core.retries == 1 and 29 < core.deadline(np.int16(30)).left() <= 30


def test_what_is_no_handle() -> None:
    for wrong in ("", None, 5, b"ab"):
        with pytest.raises(RequestError, match="a handle is what `invert` gives"):
            as_handle(wrong)  # type: ignore[arg-type]
